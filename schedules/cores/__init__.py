"""The cores: one row each, in a file for each family.

Each number has its source beside it. "measured" is by kernels of pconvgen, "LLVM" what llvm-mca 19 says of a loop of
such instructions with LLVM's model of the core, and a guess is called one. What a row does not say is as measured on
Zen 4 (`Costs`).
"""

from __future__ import annotations

from pconvgen.schedules.cores.amd import AMD
from pconvgen.schedules.cores.arm import ARM
from pconvgen.schedules.cores.generic import GENERIC
from pconvgen.schedules.cores.intel import INTEL
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa

CORES: dict[str, Core] = {core.name: core for core in (*GENERIC, *ARM, *AMD, *INTEL)}


def core_of_cpu(isa: Isa, cpu: str) -> Core:
    """The row of a processor by LLVM's name of it; that with the ISA's name where none has it."""
    named = (core for core in CORES.values() if core.isa is isa and cpu in core.cpus)
    return next(named, CORES[isa.name])
