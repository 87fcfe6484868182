"""Instruction sets (one file each) and the schedules that map a workload to them."""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512, AVX512_ZEN4
from pconvgen.schedules.neon import NEON
from pconvgen.schedules.neon_fp16 import NEON_FP16
from pconvgen.values.isa import Isa, VectorWidth

ISAS: dict[str, Isa] = {isa.name: isa for isa in (NEON, NEON_FP16, ARMV7A, AVX2, AVX512, AVX512_ZEN4)}

_HALF = {NEON.name: NEON_FP16}
"""The instruction set that computes in float16 on the same registers."""


def isa_for(name: str, arithmetic: str) -> Isa:
    """The instruction set of that name, or the one beside it, as it computes in `arithmetic`."""
    return _HALF[name] if arithmetic == "float16" else ISAS[name]


__all__ = ["ISAS", "Isa", "VectorWidth", "isa_for"]
