"""ONNX operators of any number of inputs, as elementwise operators of two, which fuse with what is before and behind.

before: y = Max(x, s, t)
after:  lv = maximum(x, s); y = maximum(lv, t)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from tvm import relax

from pconvgen.tvm_compat.relax import Expr, dtype_of
from pconvgen.tvm_compat.rewriting import Emit


def chain(
    inputs: Sequence[Expr], _attrs: dict[str, Any], emit: Emit, *, operator: Callable[[Expr, Expr], Expr]
) -> Expr:
    """The inputs combined from left to right; a single one as it is. Shapes are broadcast."""
    return reduce(lambda left, right: emit(operator(left, right)), list(inputs))


def mean(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """The sum of the inputs by their number."""
    total = chain(inputs, attrs, emit, operator=relax.op.add)
    return total if len(inputs) == 1 else relax.op.divide(total, relax.const(len(inputs), dtype_of(total)))
