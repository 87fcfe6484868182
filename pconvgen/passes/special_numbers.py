"""What TVM computes otherwise than PyTorch where numbers are NaN or infinite, in operators that it gets right.

And two that LLVM has for vectors of some widths only, so that it depends on the processor whether they are there.

argmax(x)           the first x that is equal to max(x), or that is NaN; TVM: -1 where all are -inf
x == x              not isnan(x); TVM: true
x * 0               x * [0], which TVM does not know; TVM: 0
leakyrelu(x, 0)     relu(x) + min(x, 0) * [0]; likewise
cosh(x)             e^|x| / 2 + e^-|x| / 2, from e^(|x| / 2), which is finite wherever the result is
sinh(x)             tanh(x) * cosh(x), as exact as tanh
max_pool1d, 3d      of two axes each; TVM: the smallest float of windows of -inf
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant, constant_value, dtype_of, op, op_name, shape_of
from pconvgen.tvm_compat.rewriting import Emit, rewrite_main


@module_pass
class KeepSpecialNumbers:
    """Relax pass that rewrites operators in "main" on floats of a known shape."""

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; what TVM computes right stays as it is."""

        def rule(_var: Var, value: Expr, emit: Emit) -> Expr:
            rewrite = _REWRITES.get(op_name(value))
            if rewrite is None or not dtype_of(value.args[0]).startswith("float") or not shape_of(value.args[0]):
                return value
            return rewrite(value, emit)

        return rewrite_main(module, rule)


def _index_of(call: Expr, emit: Emit, extreme: Callable[..., Expr]) -> Expr:
    data, axis, keep = call.args[0], call.attrs.axis, bool(call.attrs.keepdims)
    shape = shape_of(data) or ()
    if axis is None:
        if keep:
            return call
        data, shape, axis = emit(op.reshape(data, (int(np.prod(shape)),))), (int(np.prod(shape)),), 0
    axis = int(axis) % len(shape)
    if not shape[axis]:
        return call
    found = emit(op.equal(data, emit(extreme(data, [axis], keepdims=True))))
    found = emit(op.logical_or(found, emit(op.isnan(data))))
    places = np.arange(shape[axis], dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    nowhere = constant(np.int32(shape[axis]))
    first = emit(op.min(emit(op.where(found, constant(places), nowhere)), [axis], keepdims=keep))
    return op.astype(first, dtype_of(call))


def _cosh(call: Expr, emit: Emit) -> Expr:
    half = constant(np.array(0.5, str(dtype_of(call))))
    root = emit(op.exp(emit(op.multiply(emit(op.abs(call.args[0])), half))))
    rising = emit(op.multiply(emit(op.multiply(root, half)), root))
    return op.add(rising, emit(op.divide(half, emit(op.multiply(root, root)))))


def _sinh(call: Expr, emit: Emit) -> Expr:
    return op.multiply(emit(op.tanh(call.args[0])), emit(_cosh(call, emit)))


def _equal(call: Expr, emit: Emit) -> Expr:
    if not call.args[0].same_as(call.args[1]):
        return call
    return op.logical_not(emit(op.isnan(call.args[0])))


def _not_equal(call: Expr, _emit: Emit) -> Expr:
    return op.isnan(call.args[0]) if call.args[0].same_as(call.args[1]) else call


def _multiply(call: Expr, _emit: Emit) -> Expr:
    for data, factor in (call.args, call.args[::-1]):
        number = constant_value(factor)
        if number is not None and number.size == 1 and not number.any() and shape_of(data) == shape_of(call):
            return _times_zero(data)
    return call


def _leaky_relu(call: Expr, emit: Emit) -> Expr:
    if float(call.attrs.alpha):
        return call
    (data,) = call.args
    below = emit(op.minimum(data, constant(np.zeros((), dtype_of(data)))))
    return op.add(emit(op.nn.relu(data)), emit(_times_zero(below)))


def _times_zero(data: Expr) -> Expr:
    return op.multiply(data, constant(np.zeros(1, dtype_of(data))))


def _rows(call: Expr, emit: Emit) -> Expr:
    """max_pool1d as max_pool2d of images of one row."""
    attrs, (before, after) = call.attrs, (shape_of(call.args[0]), shape_of(call))
    if attrs.layout != "NCW" or attrs.out_layout != "NCW" or before is None or after is None:
        return call
    n, c, width = before
    rows = emit(op.reshape(call.args[0], (n, c, 1, width)))
    return op.reshape(emit(_pool(rows, attrs, (None, 0))), after)


def _volumes(call: Expr, emit: Emit) -> Expr:
    """max_pool3d along rows and columns, then along planes."""
    attrs, (before, after) = call.attrs, (shape_of(call.args[0]), shape_of(call))
    if attrs.layout != "NCDHW" or attrs.out_layout != "NCDHW" or before is None or after is None:
        return call
    n, c, depth, *size = before
    images = emit(_pool(emit(op.reshape(call.args[0], (n, c * depth, *size))), attrs, (1, 2)))
    planes = emit(op.reshape(images, (n, c, depth, after[3] * after[4])))
    return op.reshape(emit(_pool(planes, attrs, (0, None))), after)


def _pool(data: Expr, attrs: Any, axes: tuple[int | None, int | None]) -> Expr:
    """max_pool2d with what `attrs` says of `axes`; of None nothing is pooled."""
    count = len(attrs.pool_size)

    def of(values: Any, nothing: int, shift: int = 0) -> list[int]:
        return [nothing if axis is None else int(values[axis + shift]) for axis in axes]

    return op.nn.max_pool2d(
        data,
        of(attrs.pool_size, 1),
        of(attrs.strides, 1),
        of(attrs.padding, 0) + of(attrs.padding, 0, count),
        of(attrs.dilation, 1),
        bool(attrs.ceil_mode),
    )


_REWRITES: dict[str, Callable[[Expr, Emit], Expr]] = {
    "relax.argmax": lambda call, emit: _index_of(call, emit, op.max),
    "relax.cosh": _cosh,
    "relax.sinh": _sinh,
    "relax.argmin": lambda call, emit: _index_of(call, emit, op.min),
    "relax.equal": _equal,
    "relax.not_equal": _not_equal,
    "relax.multiply": _multiply,
    "relax.nn.leakyrelu": _leaky_relu,
    "relax.nn.max_pool1d": _rows,
    "relax.nn.max_pool3d": _volumes,
}
