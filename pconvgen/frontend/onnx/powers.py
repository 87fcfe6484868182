"""Powers, and what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.tvm_compat.relax import Expr, constant_value, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit


def power(data: Expr, exponent: float, emit: Emit) -> Expr:
    """`data` to the power of `exponent`; small whole ones are products. Roots are of what is not negative."""
    if exponent == 1:
        return data
    if exponent == 0.5:
        return relax.op.sqrt(data)
    data = emit(data)
    if exponent in (2, 3):
        square = relax.op.multiply(data, data)
        return square if exponent == 2 else relax.op.multiply(square, data)
    return relax.op.power(data, relax.const(exponent, dtype_of(data)))


def power_of(inputs: Sequence[Expr], _attrs: dict[str, Any], emit: Emit) -> Expr:
    """Pow: the result has the type of the base, whatever that of the exponent is."""
    base, exponent = inputs[0], constant_value(inputs[1])
    dtype = dtype_of(base)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= len(shape_of(base) or ()):
        number = float(exponent.reshape(()))
        if number in (1, 2, 3):
            return power(base, number, emit)
    if not dtype.startswith("float"):
        raise UnsupportedError(f"powers of {dtype}, but to 1, 2 and 3")
    other = inputs[1] if dtype_of(inputs[1]) == dtype else relax.op.astype(inputs[1], dtype)
    return relax.op.power(base, other)


def lp_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """Vectors along an axis divided by their p-norm; those of zeros stay zeros."""
    data, p, axis = inputs[0], attrs.get("p", 2), attrs.get("axis", -1)
    powers = relax.op.abs(data) if p == 1 else relax.op.multiply(data, data)
    norm = emit(power(emit(relax.op.sum(emit(powers), axis=axis, keepdims=True)), 1 / p, emit))
    zero, one = (relax.const(number, dtype_of(data)) for number in (0, 1))
    return relax.op.divide(data, relax.op.where(emit(relax.op.equal(norm, zero)), one, norm))


def celu(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))"""
    data = inputs[0]
    alpha, zero, one = (relax.const(np.float32(each), dtype_of(data)) for each in (attrs.get("alpha", 1.0), 0, 1))
    below = emit(relax.op.minimum(data, zero))
    bent = relax.op.multiply(alpha, relax.op.subtract(relax.op.exp(relax.op.divide(below, alpha)), one))
    return relax.op.add(relax.op.nn.relu(data), bent)


def without_axes(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr | None:
    """A reduction of no axes: what is computed of each element; None for any other."""
    if not attrs.get("noop_with_empty_axes", 0) or inputs[1] is not None:
        return None
    return _EACH[attrs["tvm_custom"]["operator"]](inputs[0], emit)


_EACH = {
    "ReduceL1": lambda data, _: relax.op.abs(data),
    "ReduceL2": lambda data, _: relax.op.abs(data),
    "ReduceLogSum": lambda data, _: relax.op.log(data),
    "ReduceSumSquare": lambda data, emit: power(data, 2, emit),
}
