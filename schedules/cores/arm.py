"""Arm's cores.

"Guide" is Arm's software optimisation guide of the core, "manual" its technical reference manual; tables are named
where they were looked up, the rest is from memory of them. Caches have the sizes of common chips; where cores share the
second (A53, A72, A7, A15) its whole size. What the second level delivers, and what comes from behind it, are guesses
unless something else is said: about two thirds of the width of the interface, and what phones and boards read from
memory. A vector of 128 bits reaches into a second line at 3 of 16 places, and rows of odd length make that one in four
(counted with a model of an A76 and its caches), which gives `split` where such a load costs two.
"""

from pconvgen.schedules.armv7a import ARMV7A
from pconvgen.schedules.neon import NEON
from pconvgen.values.core import Core, Costs, VectorRate

LOAD = 0.05
"""`Costs.load` of the A76, and by a guess of what followed it: fitted to the cycles that a model of it with its caches
counts for a dozen kernels (tests/unit/test_cores.py)."""

ARM = (
    Core(
        "cortex-a53",
        NEON,
        # LLVM: one FMA. The first-level cache is read by 64 bits (manual, L1 memory system), so that a vector takes two
        # cycles, and FMAs do not start beside it (ncnn's notes on dual issue): both cycles are in `load`.
        (VectorRate(fma=1, loads=1, split=1.25),),
        issue=2,  # LLVM
        l1_kib=32,
        l2_kib=512,
        costs=Costs(
            fma_latency=4,  # accumulators are forwarded (ncnn's notes: FMAs take theirs in the fourth cycle)
            tlb_kib=40,  # 10 entries (manual, 5.1)
            load=2.0,
            in_order=0.2,  # a guess
            l2_bytes=8.0,
            l3_bytes=2.0,
            memory_bytes=2.0,
        ),
        cpus=("cortex-a53",),
    ),
    Core(
        "cortex-a55",
        NEON,
        # Guide: one FMA by element (LLVM has two). A vector load blocks both slots for two cycles (onnxruntime's and
        # ncnn's notes).
        (VectorRate(fma=1, loads=1, split=1.25),),
        issue=2,  # guide
        l1_kib=32,
        l2_kib=128,
        costs=Costs(
            fma_latency=4,  # LLVM
            tlb_kib=64,  # 16 entries (manual, MMU)
            load=2.0,
            in_order=0.2,  # a guess
            l2_bytes=8.0,
            l3_bytes=5.0,
            memory_bytes=3.0,
        ),
        cpus=("cortex-a55",),
    ),
    Core(
        "cortex-a510",
        NEON,
        # LLVM: two FMAs and two loads. Where two cores share the vector unit, each has half of them if both compute.
        (VectorRate(fma=2, loads=2, split=1.25),),
        issue=3,  # guide
        l1_kib=32,
        l2_kib=256,
        costs=Costs(
            fma_latency=4,  # LLVM
            tlb_kib=64,  # 16 entries, a guess
            load=0.0,
            in_order=0.2,  # a guess
            l2_bytes=16.0,
            l3_bytes=8.0,
            memory_bytes=4.0,
        ),
        cpus=("cortex-a510",),
    ),
    Core(
        "cortex-a72",
        NEON,
        (VectorRate(fma=1, loads=1, split=1.25),),  # guide: one of 128 bits each, as LLVM has it
        issue=3,  # guide
        l1_kib=32,
        l2_kib=1024,
        costs=Costs(
            fma_latency=3,  # guide: 7, 3 between accumulators
            tlb_kib=128,  # 32 entries (manual)
            l2_bytes=12.0,
            l3_bytes=2.5,  # no third level
            memory_bytes=2.5,
        ),
        cpus=("cortex-a72",),
    ),
    Core(
        "cortex-a76",
        NEON,
        (VectorRate(fma=2, loads=2, split=1.25),),  # guide; LLVM's Neoverse N1
        issue=4,  # guide
        l1_kib=64,
        l2_kib=512,
        costs=Costs(
            fma_latency=2,  # guide: 4, 2 between accumulators (LLVM has 4 for both)
            tlb_kib=192,  # 48 entries (manual, A5.1)
            load=LOAD,
            l2_bytes=20.0,  # of 32, the width of the interface (manual)
            l3_bytes=12.0,
            memory_bytes=5.0,
        ),
        cpus=("cortex-a76", "cortex-a76ae"),
    ),
    Core(
        "cortex-a78",
        NEON,
        (VectorRate(fma=2, loads=3, split=1.25),),  # guide; that vectors use the third load pipe, too, is a guess
        issue=6,  # guide: macro-operations
        l1_kib=64,
        l2_kib=512,
        costs=Costs(
            fma_latency=2,  # guide
            tlb_kib=128,  # 32 entries (manual)
            load=LOAD,
            l2_bytes=20.0,
            l3_bytes=12.0,
            memory_bytes=5.0,
        ),
        cpus=("cortex-a78", "cortex-a78c"),
    ),
    Core(
        "cortex-a715",
        NEON,
        (VectorRate(fma=2, loads=3, split=1.25),),  # LLVM
        issue=5,  # guide
        l1_kib=64,
        l2_kib=512,
        costs=Costs(
            fma_latency=2,  # guide
            tlb_kib=192,  # 48 entries, a guess
            load=LOAD,
            l2_bytes=24.0,
            l3_bytes=14.0,
            memory_bytes=6.0,
        ),
        cpus=("cortex-a715",),
    ),
    Core(
        "cortex-x1",
        NEON,
        (VectorRate(fma=4, loads=3, split=1.25),),  # guide; LLVM's Neoverse V1
        issue=8,  # guide: macro-operations
        l1_kib=64,
        l2_kib=1024,
        costs=Costs(
            fma_latency=2,  # guide
            tlb_kib=192,  # 48 entries (manual)
            load=LOAD,
            l2_bytes=40.0,
            l3_bytes=16.0,
            memory_bytes=6.0,
        ),
        cpus=("cortex-x1", "cortex-x1c"),
    ),
    Core(
        "cortex-x3",
        NEON,
        (VectorRate(fma=4, loads=3, split=1.25),),  # guide (LLVM has half of the FMAs, by its model of the N2)
        issue=8,  # guide: macro-operations
        l1_kib=64,
        l2_kib=1024,
        costs=Costs(
            fma_latency=2,  # guide
            tlb_kib=192,  # 48 entries, a guess
            load=LOAD,
            l2_bytes=40.0,
            l3_bytes=16.0,
            memory_bytes=8.0,
        ),
        cpus=("cortex-x3",),
    ),
    # The A76 with another second level (guide).
    Core(
        "neoverse-n1",
        NEON,
        (VectorRate(fma=2, loads=2, split=1.25),),
        issue=4,
        l1_kib=64,
        l2_kib=1024,
        costs=Costs(fma_latency=2, tlb_kib=192, load=LOAD, l2_bytes=20.0, l3_bytes=10.0, memory_bytes=5.0),
        cpus=("neoverse-n1",),
    ),
    # The X1 with vectors of 256 bits as well, which kernels do not use: LLVM has four FMAs and three loads of 128.
    Core(
        "neoverse-v1",
        NEON,
        (VectorRate(fma=4, loads=3, split=1.25),),
        issue=8,
        l1_kib=64,
        l2_kib=1024,
        costs=Costs(fma_latency=2, tlb_kib=192, load=LOAD, l2_bytes=40.0, l3_bytes=12.0, memory_bytes=6.0),
        cpus=("neoverse-v1",),
    ),
    Core(
        "cortex-a7",
        ARMV7A,
        # A pipe of 64 bits. Vector loads take both slots for two cycles (GCC's description of the pipeline, contributed
        # by Arm), which are in `load`.
        (VectorRate(fma=0.5, loads=1, split=1.25),),
        issue=2,  # GCC
        l1_kib=32,
        l2_kib=512,
        costs=Costs(
            fma_latency=4,  # GCC: 8, 4 between accumulators
            tlb_kib=40,  # 10 entries (manual, 5.3.1)
            load=2.0,
            in_order=0.2,  # a guess
            l2_bytes=6.0,
            l3_bytes=1.5,  # no third level
            memory_bytes=1.5,
        ),
        cpus=("cortex-a7",),
    ),
    Core(
        "cortex-a15",
        ARMV7A,
        (VectorRate(fma=1, loads=1, split=1.25),),  # LLVM: one FMA; the load is a guess
        issue=3,  # manual: decodes three
        l1_kib=32,
        l2_kib=1024,
        costs=Costs(
            fma_latency=4,  # guide: 9, 4 between accumulators
            tlb_kib=128,  # 32 entries (manual)
            l2_bytes=10.0,
            l3_bytes=2.5,  # no third level
            memory_bytes=2.5,
        ),
        cpus=("cortex-a15",),
    ),
)
