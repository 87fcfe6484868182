"""What operators make of channels that hold one number at all pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.tvm_compat.relax import Expr, is_op, scalar_value, shape_of

Values = NDArray[np.float64]
"""One number per channel of a tensor that is equal at all its pixels, NaN where it is not known to be."""


def _only_zero(x: Values) -> Values:
    return np.where(x == 0, 0, np.nan)


_UNARY: dict[str, Callable[[Values], Values]] = {
    "relax.nn.relu": lambda x: np.maximum(x, 0),
    "relax.nn.silu": lambda x: x / (1 + np.exp(-x)),
    "relax.nn.gelu": _only_zero,
    "relax.nn.gelu_tanh": _only_zero,
    "relax.sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relax.tanh": np.tanh,
    "relax.exp": np.exp,
    "relax.sqrt": np.sqrt,
    "relax.abs": np.abs,
    "relax.negative": np.negative,
}
BINARY: dict[str, Callable[[Values, Values], Values]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": lambda a, b: np.where((a == 0) | (b == 0), 0, a * b),
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}
"""Elementwise operators of two tensors."""

_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")


def is_unary(value: Expr) -> bool:
    """Whether `value` is an elementwise operator of one tensor."""
    return is_op(value, "relax.clip", "relax.nn.leakyrelu", *_UNARY)


def mapped(value: Expr, values: Values) -> Values:
    """What an elementwise operator makes of its operand's values."""
    if is_op(value, "relax.clip"):
        low, high = (scalar_value(bound) for bound in value.args[1:])
        return np.clip(values, low, high)
    if is_op(value, "relax.nn.leakyrelu"):
        return np.where(values < 0, value.attrs.alpha, 1) * values
    return _UNARY[value.op.name](values)


def is_pool(value: Expr) -> bool:
    """Whether `value` pools the pixels of each channel, NCHW."""
    if is_op(value, "relax.mean"):
        return len(shape_of(value.args[0]) or ()) == 4 and sorted(int(a) % 4 for a in value.attrs.axis or ()) == [2, 3]
    return is_op(value, *_POOLS) and value.attrs.layout == "NCHW"


def pooled(pool: Expr, values: Values) -> Values:
    """What a pool makes of its operand's values; average pooling may count zeros beside the data."""
    attrs = pool.attrs
    if is_op(pool, "relax.nn.adaptive_avg_pool2d", "relax.mean"):
        return values
    if is_op(pool, "relax.nn.max_pool2d"):
        return np.full_like(values, np.nan) if _may_miss(attrs) else values
    inside = not attrs.ceil_mode and not any(int(size) for size in attrs.padding)
    return values if inside else _only_zero(values)


def _may_miss(attrs: Any) -> bool:
    """Whether a window of a maximum may lie beside the data entirely; it has no channel's value."""
    more = [int(stride) - 1 if attrs.ceil_mode else 0 for stride in attrs.strides]
    margins = [max(int(attrs.padding[i]), int(attrs.padding[i + 2]) + more[i]) for i in range(2)]
    dilated = any(int(rate) != 1 for rate in attrs.dilation)
    return dilated or any(int(size) <= margin for size, margin in zip(attrs.pool_size, margins, strict=True))


def by_channel(constant: NDArray[Any], rank: int, axis: int, channels: int) -> Values:
    """The numbers that a constant operand of a tensor of `rank` has for its channels, which lie on `axis`."""
    rows = np.moveaxis(constant.reshape((1,) * (rank - constant.ndim) + constant.shape), axis, 0)
    rows = np.broadcast_to(rows, (max(len(rows), channels), *rows.shape[1:])).reshape(channels, -1)
    return np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
