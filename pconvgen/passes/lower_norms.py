"""Normalisation that is not of images, and variances, become calls of the template, or operators that do not cancel.

before: y = layer_norm(x, scale, shift, axes=[-1])
after:  y = call_tir(norm, (x, scale, shift))

before: y = variance(x, axis=[1])
after:  a = x - mean(x, axis=[1]); b = a - mean(a, axis=[1]); y = mean(b * b, axis=[1])

Centring twice takes away what rounding left of a large mean. TVM takes the mean of the squares less the square of the
mean, of which nothing is left where the mean is large beside the spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pconvgen.matching.norms import norm_of
from pconvgen.templates.operators.normalise import NormKernel
from pconvgen.tvm_compat.calls import KernelCalls
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
from pconvgen.tvm_compat.rewriting import Emit, rewrite_main
from pconvgen.values.dtype import DType
from pconvgen.values.planes import plain_layout
from pconvgen.values.target import Target


@module_pass
class LowerNorms:
    """Relax pass that replaces normalisation, variances and standard deviations in "main".

    Parameters
    ----------
    target: what code is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = target.core.lanes(DType.FLOAT32)

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; other floats are converted to float32 and back."""
        kernels = KernelCalls(module)

        def rule(var: Var, value: Expr, emit: Emit) -> Expr:
            if not is_op(value, *_RULES) or not math.prod(shape_of(value.args[0]) or ()):
                return value
            lowered, dtype = _RULES[value.op.name], dtype_of(value)
            norms = _Norms(kernels, emit, self.lanes)
            if dtype == DType.FLOAT32:
                return lowered(norms, var, value)
            # Sums are float32.
            single = with_args(value, [emit(op.astype(arg, "float32")) for arg in value.args])
            return op.astype(emit(lowered(norms, var, single)), dtype)

        return kernels.add_to(rewrite_main(module, rule))


class _Norms:
    """Builds what takes the place of an operator."""

    def __init__(self, kernels: KernelCalls, emit: Emit, lanes: int) -> None:
        self.kernels, self.emit, self.lanes = kernels, emit, lanes

    def pixels(self, var: Var, value: Expr) -> Expr:
        """Over everything behind the channels."""
        norm = norm_of(var, value)
        if norm is None:
            return self.composed(value)
        n, c, *rest = shape_of(norm.data) or ()
        layout = plain_layout(c, 1, math.prod(rest))
        kernel = NormKernel(
            n, c, norm.groups, norm.joint, layout, layout, (0, 0), False, norm.epsilon, None, self.lanes
        )
        return self._call(kernel, norm.data, norm.scale, norm.shift)

    def rows(self, _var: Var, value: Expr) -> Expr:
        """Over the last axes."""
        data, scale, shift = value.args
        shape = shape_of(data) or ()
        axes = sorted(int(axis) % len(shape) for axis in value.attrs.axes)
        if axes != list(range(len(shape) - len(axes), len(shape))):
            return self.composed(value)
        rows, size = math.prod(shape[: axes[0]]), math.prod(shape[axes[0] :])
        layout = plain_layout(rows, 1, size)
        epsilon = float(value.attrs.epsilon)
        kernel = NormKernel(1, rows, rows, False, layout, layout, (0, 0), True, epsilon, None, self.lanes)
        return self._call(kernel, data, scale, shift)

    def _call(self, kernel: NormKernel, data: Expr, scale: Expr, shift: Expr) -> Expr:
        shape, layout = shape_of(data) or (), kernel.source
        inside = (kernel.batch, layout.channels, layout.height, layout.width)
        args = [self._shaped(data, inside), self._shaped(scale, kernel.factors), self._shaped(shift, kernel.factors)]
        call = self.kernels.call(kernel, args, inside)
        return call if shape == inside else op.reshape(self.emit(call), shape)

    def _shaped(self, expr: Expr, shape: tuple[int, ...]) -> Expr:
        value = constant_value(expr)
        if value is not None:
            return constant(value.reshape(shape))
        return expr if shape_of(expr) == shape else self.emit(op.reshape(expr, shape))

    def composed(self, value: Expr) -> Expr:
        """Over any axes."""
        data, scale, shift = value.args
        rank, attrs = len(shape_of(data) or ()), value.attrs
        if is_op(value, "relax.nn.group_norm"):
            return value
        axes = [int(axis) % rank for axis in attrs.axes]
        along = axes if is_op(value, "relax.nn.layer_norm") else [int(attrs.channel_axis) % rank]
        sizes = tuple((shape_of(data) or ())[axis] if axis in along else 1 for axis in range(rank))
        centred, variance = self._centred(data, axes, keepdims=True)
        deviation = self.emit(op.sqrt(self.emit(op.add(variance, constant(np.float32(attrs.epsilon))))))
        scaled = self.emit(op.multiply(self.emit(op.divide(centred, deviation)), self._shaped(scale, sizes)))
        return op.add(scaled, self._shaped(shift, sizes))

    def variance(self, _var: Var, value: Expr) -> Expr:
        """Of the elements along some axes."""
        data, attrs = value.args[0], value.attrs
        rank = len(shape_of(data) or ())
        axes = list(range(rank)) if attrs.axis is None else [int(axis) % rank for axis in attrs.axis]
        _, variance = self._centred(data, axes, keepdims=bool(attrs.keepdims))
        return op.sqrt(variance) if is_op(value, "relax.std") else variance

    def _centred(self, data: Expr, axes: Sequence[int], *, keepdims: bool) -> tuple[Expr, Expr]:
        """The data without its mean, and the mean of its squares."""
        axes = list(axes)
        for _ in range(2):
            data = self.emit(op.subtract(data, self.emit(op.mean(data, axes, True))))
        return data, self.emit(op.mean(self.emit(op.multiply(data, data)), axes, keepdims))


_RULES: dict[str, Callable[[_Norms, Var, Expr], Expr]] = {
    "relax.nn.group_norm": _Norms.pixels,
    "relax.nn.instance_norm": _Norms.pixels,
    "relax.nn.layer_norm": _Norms.rows,
    "relax.std": _Norms.variance,
    "relax.variance": _Norms.variance,
}
