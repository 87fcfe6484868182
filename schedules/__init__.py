"""Instruction sets (one file each), cores (one row each), and the schedules that were measured on some."""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.schedules.neon import NEON
from pconvgen.values.isa import Isa

ISAS: dict[str, Isa] = {isa.name: isa for isa in (NEON, ARMV7A, AVX2, AVX512)}
