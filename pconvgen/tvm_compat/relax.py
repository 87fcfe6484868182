"""Relax expressions: what one of them is, and making others.

`op` has TVM's operators; what follows is what those lack.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax import op

Expr = Any
"""An expression of Relax: what a variable is bound to, or a part of it. Any, as versions of TVM move its classes."""

Var = Any
"""A variable of Relax."""

Binding = Any
"""A variable and what it is bound to: `binding.var`, `binding.value`."""

Module = Any
"""An IRModule: functions by name, of Relax and of TIR."""


def constant(value: Any) -> Expr:
    """A Relax constant that holds `value`, an array or a number of a NumPy dtype."""
    array = np.asarray(value)
    tensor = tvm.runtime.empty(array.shape, str(array.dtype))
    np.from_dlpack(tensor)[...] = array  # copies views as well, once
    return relax.const(tensor)


def constant_value(expr: Expr) -> NDArray[Any] | None:
    """The array that a Relax constant holds, not copied (do not write to it); None for any other expression."""
    if not isinstance(expr, tvm.ir.GenericConst) or not isinstance(expr.value, tvm.runtime.Tensor):
        return None
    return np.from_dlpack(expr.value)


def scalar_value(expr: Expr | float) -> float:
    """The number in a Relax scalar, such as a bound of relax.clip."""
    value = getattr(expr, "value", expr)
    return float(getattr(value, "value", value))


def op_name(expr: Expr) -> str:
    """The name of the Relax operator that `expr` calls, e.g. "relax.nn.conv2d"; empty when it calls none."""
    return str(expr.op.name) if isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op) else ""


def is_op(expr: Expr, *names: str) -> bool:
    """Whether `expr` calls one of the named Relax operators."""
    return op_name(expr) in names


def is_dataflow_var(var: Var) -> bool:
    """Whether a variable is visible in its dataflow block only."""
    return isinstance(var, relax.DataflowVar)


def is_static(sizes: Iterable[Expr | int]) -> bool:
    """Whether sizes are numbers rather than expressions."""
    return all(isinstance(size, int | tvm.tirx.IntImm) for size in sizes)


def shape_of(expr: Expr) -> tuple[int, ...] | None:
    """The static shape of a tensor expression; None when it is no tensor or a dimension is symbolic."""
    return _static_shape(expr.ty)


def shapes_of(expr: Expr) -> list[tuple[int, ...] | None]:
    """As `shape_of`, of each field of a tuple; of a tensor its own."""
    return [_static_shape(kind) for kind in getattr(expr.ty, "fields", (expr.ty,))]


def _static_shape(kind: Any) -> tuple[int, ...] | None:
    shape = getattr(kind, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    if not all(isinstance(size, tvm.tirx.IntImm) for size in shape.values):
        return None
    return tuple(int(size) for size in shape.values)


def dtype_of(expr: Expr) -> str:
    """The element type of a tensor expression, e.g. "float32"."""
    return str(expr.ty.dtype)


def variables_of(expr: Expr) -> list[Var]:
    """The Relax variables in `expr`, one for every occurrence."""
    found: list[Var] = []
    relax.analysis.post_order_visit(expr, lambda node: found.append(node) if isinstance(node, relax.Var) else None)
    return found


def tuple_item(expr: Expr) -> tuple[Expr, int] | None:
    """(tuple, number) of the field that `expr` takes of a tuple; None when it takes none."""
    return (expr.tuple_value, int(expr.index)) if isinstance(expr, relax.TupleGetItem) else None


def split_indices(split: Expr) -> list[int]:
    """Where the parts of a relax.split begin and where the last one ends."""
    size, parts = (shape_of(split.args[0]) or ())[int(split.attrs.axis)], split.attrs.indices_or_sections
    if isinstance(parts, int | tvm.tirx.IntImm):
        step = -(-size // int(parts))
        return [min(size, step * i) for i in range(int(parts) + 1)]
    return [0, *(int(index) for index in parts), size]


def strided_slice_of(expr: Expr) -> tuple[Expr, int, int, int] | None:
    """(tensor, axis, begin, end) of a relax.strided_slice of one axis with stride 1; None for anything else."""
    if not is_op(expr, "relax.strided_slice"):
        return None
    tuples = [[scalar_value(field) for field in arg.fields] for arg in expr.args[1:] if hasattr(arg, "fields")]
    axes, begins, ends, *strides = tuples
    shape = shape_of(expr.args[0])
    if shape is None or len(axes) != 1 or any(stride != 1 for stride in (strides or [[1]])[0]):
        return None
    axis = int(axes[0]) % len(shape)
    begin, end = (int(v[0]) + (shape[axis] if v[0] < 0 else 0) for v in (begins, ends))
    return expr.args[0], axis, max(0, begin), min(shape[axis], end)


def with_args(call: Expr, args: list[Expr]) -> Expr:
    """The same operator on other arguments; its type is not known yet."""
    return tvm.ir.Call(call.op, args, call.attrs, call.ty_args)


def with_weight(call: Expr, weight: NDArray[Any], groups: int | None = None) -> Expr:
    """A convolution or matrix product of the same data with another weight, and with other groups if given."""
    if groups is None:
        return with_args(call, [call.args[0], constant(weight)])
    attrs = {key: getattr(call.attrs, key) for key in ("strides", "padding", "dilation")}
    return op.nn.conv2d(call.args[0], constant(weight), **attrs, groups=groups)


def abandon(builder: relax.BlockBuilder | None) -> None:
    """Ends the block that an exception left open in a builder, of which TVM would complain once the builder is gone."""
    with suppress(Exception):
        if builder is not None:
            builder._end_block()
