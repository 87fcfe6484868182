"""One spelling for what front ends spell in several ways, so that later passes match one form."""

from __future__ import annotations

import numpy as np

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import (
    Expr,
    Module,
    Var,
    constant,
    constant_value,
    dtype_of,
    is_op,
    op,
    shape_of,
    with_args,
)
from pconvgen.tvm_compat.rewriting import Emit, eliminate_dead_code, rewrite_main


@module_pass
class CanonicalizeOperators:
    """SiLU and global average pooling are one operator each; TVM lowers tensors of infinities only as broadcasts.

    before: s = sigmoid(x); y = multiply(x, s); z = mean(y, axis=[2, 3], keepdims=True)
    after:  y = nn.silu(x); z = nn.adaptive_avg_pool2d(y, output_size=[1, 1])

    What a norm that is spelled out takes its mean off is centred twice: the second mean is what rounding left of the
    first.

    before: y = subtract(x, mean(x))
    after:  a = subtract(x, mean(x)); y = subtract(a, mean(a))
    """

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; a sigmoid that is not used any more is dropped."""
        values: dict[Var, Expr] = {}

        def rule(var: Var, value: Expr, emit: Emit) -> Expr:
            values[var] = value
            if is_op(value, "relax.multiply"):
                return _silu(value, values)
            if is_op(value, "relax.full", "relax.full_like"):
                return _infinite(value)
            if is_op(value, "relax.subtract"):
                return _centred(value, values, emit)
            return _global_average(value) if is_op(value, "relax.mean") else value

        return eliminate_dead_code(rewrite_main(module, rule))


def _silu(value: Expr, values: dict[Var, Expr]) -> Expr:
    for data, gate in (tuple(value.args), tuple(value.args)[::-1]):
        sigmoid: Expr = values.get(gate)
        if is_op(sigmoid, "relax.sigmoid") and sigmoid.args[0].same_as(data):
            return op.nn.silu(data)
    return value


def _global_average(value: Expr) -> Expr:
    rank = len(shape_of(value.args[0]) or ())
    axes = {int(axis) % rank for axis in value.attrs.axis or ()} if rank == 4 else set()
    if axes == {2, 3} and value.attrs.keepdims:
        return op.nn.adaptive_avg_pool2d(value.args[0], (1, 1))
    return value


def _centred(value: Expr, values: dict[Var, Expr], emit: Emit) -> Expr:
    data, subtracted = value.args
    average: Expr = values.get(subtracted)
    if not is_op(average, "relax.mean", "relax.nn.adaptive_avg_pool2d") or not average.args[0].same_as(data):
        return value
    before, after = shape_of(data) or (), shape_of(average) or ()
    if after and (
        len(after) != len(before) or any(new not in (1, old) for old, new in zip(before, after, strict=True))
    ):
        return value
    centred = emit(value)
    mean = with_args(average, [centred])
    return op.subtract(centred, emit(_global_average(mean) if is_op(mean, "relax.mean") else mean))


def _infinite(value: Expr) -> Expr:
    fill, shape = constant_value(value.args[1]), shape_of(value)
    if fill is None or shape is None or np.isfinite(fill).all():
        return value
    return op.broadcast_to(constant(fill.astype(dtype_of(value))), shape)
