"""Operators of our own: calls of a name that a pass replaces, and sums of elements that are taken out of a tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from pconvgen.tvm_compat.relax import Expr, constant, dtype_of, is_op, shape_of


def packed_call(name: str, arguments: list[Expr], shape: tuple[int, ...], dtype: str) -> Expr:
    """The operator `name` applied to tensors."""
    return relax.call_dps_packed(name, arguments, relax.TensorType(shape, dtype))


def packed_arguments(expr: Expr, name: str) -> list[Expr] | None:
    """The tensors that `expr` applies the operator `name` to; None when it does not."""
    if not is_op(expr, "relax.call_dps_packed") or not isinstance(expr.args[0], tvm.relax.ExternFunc):
        return None
    return list(expr.args[1].fields) if expr.args[0].global_symbol == name else None


def weighted_takes(
    data: Expr, axis: int, indices: NDArray[np.int64], weights: NDArray[np.float32], emit: Callable[[Expr], Expr]
) -> Expr:
    """sum over t: weights[t] * data[..., indices[t], ...] along `axis`, both [terms, outputs]; outside is the border.

    A single term has the weight 1.
    """
    shape = shape_of(data) or ()
    wide = [-1 if other == axis else 1 for other in range(len(shape))]
    total = None
    for places, scales in zip(np.clip(indices, 0, shape[axis] - 1), weights, strict=True):
        part = emit(relax.op.take(data, constant(places.astype(np.int64)), axis=axis, mode="clip"))
        if len(indices) > 1:
            part = emit(relax.op.multiply(part, constant(scales.reshape(wide).astype(dtype_of(data)))))
        total = part if total is None else emit(relax.op.add(total, part))
    return total
