"""Instruction sets (one file each) and the schedules that map a workload to them."""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512, AVX512_ZEN4
from pconvgen.schedules.isa import Isa, VectorWidth
from pconvgen.schedules.neon import NEON

ISAS: dict[str, Isa] = {isa.name: isa for isa in (NEON, ARMV7A, AVX2, AVX512, AVX512_ZEN4)}

__all__ = ["ISAS", "Isa", "VectorWidth"]
