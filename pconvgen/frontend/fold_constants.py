"""Folds operators on weights, such as the masks of pruning, at import and without compiling anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant, constant_value, dtype_of, is_op, op_name, shape_of
from pconvgen.tvm_compat.rewriting import Emit, eliminate_dead_code, rewrite_main

Array = NDArray[Any]

_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.power": np.power,
    "relax.negative": np.negative,
    "relax.abs": np.abs,
    "relax.sqrt": np.sqrt,
    "relax.rsqrt": lambda x: 1 / np.sqrt(x),
    "relax.exp": np.exp,
    "relax.sign": np.sign,
    "relax.sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relax.equal": np.equal,
    "relax.not_equal": np.not_equal,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.where": np.where,
    "relax.astype": lambda x: x,
}
_RESHAPING = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten")


@module_pass
class FoldWeightConstants:
    """Evaluate with NumPy what depends on constants only.

    before: w = multiply(weight_orig, weight_mask); y = nn.conv2d(x, w)
    after:  y = nn.conv2d(x, weight)
    """

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; operators that are not in the table stay."""
        return eliminate_dead_code(rewrite_main(module, _fold))


def _fold(_var: Var, value: Expr, _emit: Emit) -> Expr:
    shape = shape_of(value) if op_name(value) else None
    if shape is None:
        return value
    if is_op(value, *_RESHAPING, "relax.permute_dims", "relax.broadcast_to"):
        array = constant_value(value.args[0])
        return value if array is None else constant(_move(value, array, shape))
    function = _ELEMENTWISE.get(op_name(value))
    arrays = [constant_value(arg) for arg in value.args]
    if function is None or any(array is None for array in arrays):
        return value
    with np.errstate(all="ignore"):  # infinities are numbers, as where the model computes this itself
        return constant(np.asarray(function(*arrays)).astype(dtype_of(value)))


def _move(value: Expr, array: Array, shape: tuple[int, ...]) -> Array:
    if is_op(value, "relax.permute_dims"):
        axes = value.attrs.axes
        return np.transpose(array, None if axes is None else [int(axis) for axis in axes])
    if is_op(value, "relax.broadcast_to"):
        return np.broadcast_to(array, shape)
    return array.reshape(shape)
