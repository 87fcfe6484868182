"""The FMA peak of the core: the roof that kernels are compared with, measured in the same process."""

from __future__ import annotations

import numpy as np
import tvm

from pconvgen.tvm_compat import T, broadcast, prim_func, ramp

ACCUMULATORS = 12
ROUNDS = 400_000


def peak_gflops(target: tvm.target.Target, lanes: int) -> float:
    """GFLOP/s of independent vector FMAs on registers, one thread; the best of five runs of some milliseconds."""
    with prim_func("peak") as func:
        seed = T.arg("seed", T.buffer((lanes,), "float32"))
        out = T.arg("out", T.buffer((ACCUMULATORS * lanes,), "float32"))
        acc = [T.alloc_buffer((lanes,), "float32") for _ in range(ACCUMULATORS)]
        for i, a in enumerate(acc):
            T.buffer_store(a, broadcast(T.float32(i), lanes), [ramp(0, lanes)])
        x = T.Bind(seed[ramp(0, lanes)])
        with T.serial(0, ROUNDS):
            for a in acc:
                T.buffer_store(a, a[ramp(0, lanes)] * x + x, [ramp(0, lanes)])
        for i, a in enumerate(acc):
            T.buffer_store(out, a[ramp(0, lanes)], [ramp(i * lanes, lanes)])
    library = tvm.compile(func().with_attr("global_symbol", "peak"), target=target)
    args = [tvm.runtime.tensor(np.full(n, 0.5, np.float32)) for n in (lanes, ACCUMULATORS * lanes)]
    times = library.mod.time_evaluator("peak", tvm.cpu(), number=1, repeat=5)(*args).results
    return 2 * lanes * ACCUMULATORS * ROUNDS / min(times) / 1e9
