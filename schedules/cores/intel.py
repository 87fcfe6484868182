"""Intel's cores. "Manual" is the Intel 64 and IA-32 architectures optimisation reference manual.

Loads that reach into a second line cost two (manual): 15 of 16 places of 512 bits, 7 of 16 of 256.
"""

from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.avx512 import AVX512
from pconvgen.values.core import Core, Costs, VectorRate

INTEL = (
    Core(
        "skylake",
        AVX2,
        (VectorRate(fma=2, loads=2, split=1.5),),  # manual
        issue=4,  # manual: what is renamed
        l2_kib=256,
        costs=Costs(
            fma_latency=4,  # manual
            l2_bytes=29.0,  # manual: sustained
            l3_bytes=18.0,  # manual: sustained
            tlb_kib=256,  # 64 entries (manual)
        ),
        cpus=("skylake",),
    ),
    # With two 512-bit FMA pipes, as most have.
    Core(
        "skylake-server",
        AVX512,
        (VectorRate(fma=2, loads=2, split=2.0), VectorRate(fma=2, loads=2, split=1.5)),  # manual
        issue=4,  # manual
        l2_kib=1024,
        costs=Costs(
            fma_latency=4,  # manual
            l2_bytes=52.0,  # manual: sustained
            l3_bytes=15.0,  # manual: sustained
            tlb_kib=256,  # 64 entries (manual)
        ),
        cpus=("skylake-avx512", "cascadelake", "cooperlake"),
    ),
    Core(
        "sapphire-rapids",
        AVX512,
        (VectorRate(fma=2, loads=2, split=2.0), VectorRate(fma=2, loads=3, split=1.5)),  # manual: Golden Cove
        issue=6,  # manual
        l1_kib=48,  # manual
        l2_kib=2048,  # manual
        costs=Costs(
            fma_latency=4,  # manual
            l2_bytes=48.0,  # of the 64 of the interface: a guess
            l3_bytes=10.0,  # a guess
            tlb_kib=384,  # 96 entries (manual)
        ),
        cpus=("sapphirerapids", "emeraldrapids"),
    ),
    # The performance cores; the others of the same chip are slower at everything.
    Core(
        "alder-lake",
        AVX2,
        (VectorRate(fma=2, loads=3, split=1.5),),  # manual: Golden Cove
        issue=6,  # manual
        l1_kib=48,  # manual
        l2_kib=1280,  # manual
        costs=Costs(
            fma_latency=4,  # manual
            l2_bytes=48.0,  # as Sapphire Rapids
            tlb_kib=384,  # 96 entries (manual)
        ),
        cpus=("alderlake", "raptorlake"),
    ),
)
