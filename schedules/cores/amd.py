"""AMD's cores. "Guide" is AMD's software optimisation guide of the family."""

from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.values.core import Core, Costs, VectorRate

AMD = (
    Core(
        "zen2",
        AVX2,
        # Two of 256 bits each (guide, family 17h); 7 of 16 places reach into a second line, as on Zen 4.
        (VectorRate(fma=2, loads=2, split=1.5),),
        issue=5,  # of the six that are dispatched, as on Zen 4
        costs=Costs(fma_latency=5),  # guide; the caches and 64 entries of the TLB are near enough to Zen 4's
        cpus=("znver2",),
    ),
    Core(
        "zen3",
        AVX2,
        # Of three loads two of 256 bits (guide, family 19h).
        (VectorRate(fma=2, loads=2, split=1.5),),
        issue=5,  # as Zen 2
        costs=Costs(fma_latency=4),  # guide
        cpus=("znver3",),
    ),
    # Zen 4 runs 512-bit instructions as two halves, so 256-bit vectors have the same peak and shorter tails, and leave
    # 32 registers that are each half as large, so that register tiles fit layers better. `split` and `Costs` are fitted
    # to some hundred measured schedules.
    Core(
        "avx512-zen4",
        AVX512,
        (VectorRate(fma=1, loads=1, split=1.5), VectorRate(fma=2, loads=2, split=1.8)),
        issue=5,
        cpus=("znver4",),
    ),
    Core(
        "zen5",
        AVX512,
        # Two of 512 bits each, of which loads may be of 256 as well ("Next generation Zen 5 core", Hot Chips 2024);
        # chips for laptops have half of it. A load that reaches into a second line costs two, as on all others.
        (VectorRate(fma=2, loads=2, split=2.0), VectorRate(fma=2, loads=2, split=1.5)),
        issue=6,  # of the eight that are dispatched (Hot Chips): a guess by Zen 4's share
        l1_kib=48,  # Hot Chips
        l2_kib=1024,  # Hot Chips
        costs=Costs(
            fma_latency=4,  # guide
            l2_bytes=50.0,  # of the 64 that a fill brings (Hot Chips): a guess
            tlb_kib=384,  # 96 entries (Hot Chips)
        ),
        cpus=("znver5",),
    ),
)
