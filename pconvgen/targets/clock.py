"""The clock of this machine, measured: what the kernel tells is often the nominal one, far from the real one."""

from __future__ import annotations

from functools import cache

STEPS = 2_000_000
"""Long enough for a millisecond, short enough that three runs are not noticed."""


@cache
def measured_ghz() -> float:
    """Clock of one core in GHz: a chain of additions and exclusive ors, each of which takes one cycle on any core."""
    import numpy as np

    from pconvgen.tvm_compat.timing import fastest_call
    from pconvgen.tvm_compat.tir import T, prim_func

    with prim_func("chain") as func:
        data = T.arg("data", T.buffer((1,), "int32"))
        total = T.alloc_buffer((1,), "int32")
        T.buffer_store(total, data[0], [0])
        with T.serial(0, STEPS) as i:
            T.buffer_store(total, T.bitwise_xor(total[0] + data[0], i), [0])
        T.buffer_store(data, total[0], [0])
    return round(2 * STEPS / fastest_call(func(), np.ones(1, np.int32), repeats=5) / 1e9, 3)
