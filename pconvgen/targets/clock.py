"""The clock of this machine, measured: what the kernel tells is often the nominal one, far from the real one."""

from __future__ import annotations

from functools import cache

STEPS = 2_000_000
"""Long enough for a millisecond, short enough that three runs are not noticed."""


@cache
def measured_ghz() -> float:
    """Clock of one core in GHz: a chain of additions and exclusive ors, each of which takes one cycle on any core."""
    import numpy as np
    import tvm

    from pconvgen.tvm_compat import T, prim_func

    with prim_func("chain") as func:
        data = T.arg("data", T.buffer((1,), "int32"))
        total = T.alloc_buffer((1,), "int32")
        T.buffer_store(total, data[0], [0])
        with T.serial(0, STEPS) as i:
            T.buffer_store(total, tvm.tirx.bitwise_xor(total[0] + data[0], i), [0])
        T.buffer_store(data, total[0], [0])
    library = tvm.compile(func().with_attr("global_symbol", "chain"), target=tvm.target.Target({"kind": "llvm"}))
    one = tvm.runtime.tensor(np.ones(1, np.int32))
    seconds = min(library.mod.time_evaluator("chain", tvm.cpu(), number=1, repeat=5)(one).results)
    return round(2 * STEPS / seconds / 1e9, 3)
