"""The machine that the compiler runs on, as a target."""

from __future__ import annotations

import functools
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path

from pconvgen.errors import UsageError
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.schedules.cores import core_of_cpu
from pconvgen.schedules.neon import NEON
from pconvgen.values.core import Core
from pconvgen.values.target import Target

CPUINFO = Path("/proc/cpuinfo")
SYSTEM_CPU = Path("/sys/devices/system/cpu/cpu0")


@functools.cache
def host_target() -> Target:
    """The target of this machine.

    Raises
    ------
    UsageError: this machine has neither AVX2 with FMA nor NEON, or does not run Linux.
    """
    if sys.platform != "linux":
        raise UsageError(
            "the host target needs Linux", found=sys.platform, remedy="choose an ARM target, or compile on Linux"
        )
    from pconvgen.tvm_compat.llvm import host_cpu, host_triple

    cpu, flags = host_cpu(), cpu_flags(_read(CPUINFO))
    core = core_of(platform.machine(), cpu, flags)
    return Target(
        name="host",
        core=replace(core, l1_kib=_cache_kib(level=1) or core.l1_kib, l2_kib=_cache_kib(level=2) or core.l2_kib),
        triple=host_triple(),
        cpu=cpu,
        # LLVM knows the model, not what a hypervisor has masked: without this it would emit AVX-512 that traps.
        features=("-avx512f",) if core.isa is AVX2 and "avx512f" not in flags else (),
        platform="host",
    )


def core_of(machine: str, cpu: str, flags: frozenset[str]) -> Core:
    """The row of CORES for a machine (`uname -m`), an LLVM processor name and the kernel's flags: see `core_of_cpu`.

    Raises
    ------
    UsageError: there are no kernels for such a machine.
    """
    if machine in ("aarch64", "arm64"):
        isa = NEON
    elif {"avx512f", "avx512vl"} <= flags:
        isa = AVX512
    elif {"avx2", "fma"} <= flags:
        isa = AVX2
    else:
        raise UsageError(
            "no kernels for this machine",
            found=f"{machine} ({cpu})",
            expected="x86-64 with AVX2 and FMA, or aarch64",
            remedy="choose an ARM target such as cortex-a76 and run it emulated",
        )
    return core_of_cpu(isa, cpu)


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Feature names of the first processor in the text of /proc/cpuinfo (`flags` on x86, `Features` on ARM)."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def _read(path: Path) -> str:
    """Text of a file of /proc or /sys, empty where this kernel has none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cache_kib(level: int) -> int | None:
    """Size of the data cache of a level, None where the kernel does not tell."""
    for index in sorted((SYSTEM_CPU / "cache").glob("index*")):
        size = _read(index / "size")
        if _read(index / "level") == str(level) and _read(index / "type") != "Instruction" and size.endswith("K"):
            return int(size[:-1])
    return None
