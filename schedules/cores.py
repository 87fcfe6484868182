"""The cores: one row each."""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.schedules.neon import NEON
from pconvgen.values.core import Core, VectorRate

_CORES = (
    # Two 128-bit FMA pipes and two load pipes: Cortex-A76 and later; A53 and A55, which issue in order, have half of
    # both, the same ratio.
    Core("neon", NEON, (VectorRate(fma=2, loads=2, split=1.0),), issue=4, in_order=True),
    # One 64-bit pipe computes half a vector per cycle: Cortex-A7. Cortex-A15 has twice of everything, the same ratio.
    Core("armv7a", ARMV7A, (VectorRate(fma=0.5, loads=0.5, split=1.0),), issue=2, in_order=False),
    Core("avx2", AVX2, (VectorRate(fma=2, loads=2, split=1.5),), issue=5, in_order=False),
    Core(
        "avx512",
        AVX512,
        (VectorRate(fma=2, loads=2, split=2.0), VectorRate(fma=2, loads=2, split=1.5)),
        issue=5,
        in_order=False,
    ),
    # Zen 4 runs 512-bit instructions as two halves, so 256-bit vectors have the same peak and shorter tails, and leave
    # 32 registers that are each half as large, so that register tiles fit layers better. `split` is fitted to some
    # hundred measured schedules.
    Core(
        "avx512-zen4",
        AVX512,
        (VectorRate(fma=1, loads=1, split=1.5), VectorRate(fma=2, loads=2, split=1.8)),
        issue=5,
        in_order=False,
        cpus=("znver4",),
    ),
)
CORES: dict[str, Core] = {core.name: core for core in _CORES}
