"""One core for each instruction set, which stands for processors that no row names.

They are cautious: a choice for one of them is not far from the best on any.
"""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.schedules.neon import NEON
from pconvgen.values.core import Core, Costs, VectorRate

GENERIC = (
    # As many loads as FMAs, as most have, and instructions that do not hide, as on the small cores of a phone, where a
    # thread may land.
    Core("neon", NEON, (VectorRate(fma=2, loads=2, split=1.0),), issue=4, costs=Costs(in_order=0.2, load=0.0)),
    # A pipe of 64 bits, as the smallest have.
    Core("armv7a", ARMV7A, (VectorRate(fma=0.5, loads=0.5, split=1.0),), issue=2),
    Core("avx2", AVX2, (VectorRate(fma=2, loads=2, split=1.5),), issue=5),
    # 15 of the 16 places of a float32 vector of 512 bits reach into a second line, 7 of 16 of one of 256.
    Core("avx512", AVX512, (VectorRate(fma=2, loads=2, split=2.0), VectorRate(fma=2, loads=2, split=1.5)), issue=5),
)
