"""Times of TIR functions on this machine."""

from __future__ import annotations

from typing import Any

import tvm
from numpy.typing import NDArray
from tvm.tirx import PrimFunc


def fastest_call(function: PrimFunc, argument: NDArray[Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls of a function of one buffer, which is compiled for any such machine."""
    compiled = tvm.compile(function.with_attr("global_symbol", "timed"), target=tvm.target.Target({"kind": "llvm"}))
    timed = compiled.mod.time_evaluator("timed", tvm.cpu(), number=1, repeat=repeats)
    return float(min(timed(tvm.runtime.tensor(argument)).results))
