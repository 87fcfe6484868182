"""ONNX operators that compute each element on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.tvm_compat.relax import Expr, constant_value, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit


def clip(inputs: Sequence[Expr], _attrs: dict[str, Any], emit: Emit) -> Expr | None:
    """The smaller of `max` and the larger of `min` and the element: all are `max` where `min` is above it."""
    low, high = bound(inputs[1], -np.inf), bound(inputs[2], np.inf)
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return None
    data = inputs[0]
    dtype = dtype_of(data)
    if low <= high and "float" in dtype:
        return relax.op.nn.relu(data) if (low, high) == (0, np.inf) else relax.op.clip(data, low, high)
    if low > -np.inf:
        data = emit(relax.op.maximum(data, relax.const(low, dtype)))
    return relax.op.minimum(data, relax.const(high, dtype)) if high < np.inf else data


def is_inf(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """Whether an element is infinite; attributes leave out those of one sign."""
    data = emit(inputs[0])
    found = emit(relax.op.isinf(data))
    zero = relax.const(0, dtype_of(data))
    if not attrs.get("detect_positive", 1):
        found = emit(relax.op.logical_and(found, relax.op.less(data, zero)))
    if not attrs.get("detect_negative", 1):
        found = relax.op.logical_and(found, relax.op.greater(data, zero))
    return found


def modulo(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr | None:
    """The remainder of floats, with the sign of the divisor; right also where the divisor is infinite."""
    data, divisor = map(emit, inputs)
    if attrs.get("fmod", 0) or "float" not in dtype_of(data):
        return None
    zero = relax.const(0, dtype_of(data))
    rest = emit(relax.op.mod(data, divisor))
    signs = emit(relax.op.logical_xor(relax.op.less(rest, zero), relax.op.less(divisor, zero)))
    other = emit(relax.op.logical_and(relax.op.not_equal(rest, zero), signs))
    return relax.op.where(other, relax.op.add(rest, divisor), rest)


def dropout(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr:
    """The data, and a mask that keeps all of it; in training it would be random, and is refused."""
    data, ratio, training = [*inputs, None, None][:3]
    if bound(training, 0) != 0 and bound(ratio, 0.5) != 0:
        raise UnsupportedError("training_mode, which draws random numbers; export the model in evaluation mode")
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return data
    return relax.Tuple([data, relax.const(np.ones(shape_of(data) or (), bool))])


def bound(value: Expr, missing: float) -> float | None:
    """The number in an optional input: `missing` when it is not given, None when it is no constant."""
    if value is None:
        return missing
    array = constant_value(value)
    return None if array is None else float(array)
