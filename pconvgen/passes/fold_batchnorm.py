"""Folds batch norm into the convolution, transposed convolution or linear layer before it."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import (
    Expr,
    Module,
    Var,
    constant,
    constant_value,
    is_op,
    op,
    shape_of,
    tuple_item,
    variables_of,
    with_weight,
)
from pconvgen.tvm_compat.rewriting import Emit, eliminate_dead_code, main_bindings, main_results, rewrite_main

Array = NDArray[np.float32]

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
_MATMUL = "relax.matmul"


@module_pass
class FoldBatchNorm:
    """Batch norm of inference becomes part of the weight and of one bias; zeros of the weight stay zeros.

    before: c = nn.conv2d(x, w); y = nn.batch_norm(add(c, b), gamma, beta, mean, var)[0]
    after:  c = nn.conv2d(x, w * s); y = add(c, b * s + beta - mean * s)      with s = gamma / sqrt(var + epsilon)

    The convolution keeps the name of its variable. A batch norm behind anything else, or behind a convolution whose
    result is used elsewhere too, becomes a multiplication and an addition of constants.
    """

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; a batch norm stays whose parameters are not constants or whose variance is not positive."""
        folder = _Folder(module)
        return eliminate_dead_code(rewrite_main(module, folder.rule))


class _Folder:
    def __init__(self, module: Module) -> None:
        self.values: dict[Var, Expr] = {}
        self.uses = _use_counts(module)

    def rule(self, var: Var, value: Expr, emit: Emit) -> Expr:
        self.values[var] = value
        item = tuple_item(value)
        norm: Expr = None if item is None else self.values.get(item[0])
        if item is None or not is_op(norm, "relax.nn.batch_norm") or item[1] != 0:
            return value
        affine = _scale_and_shift(norm)
        if affine is None:
            return value
        data = norm.args[0]
        axis = int(norm.attrs.axis) % len(shape_of(data) or (0,))
        folded = self._fold(data, axis, *affine, emit)
        result = _affine(data, axis, *affine, emit) if folded is None else folded
        self.values[var] = result
        return result

    def _fold(self, data: Expr, axis: int, scale: Array, shift: Array, emit: Emit) -> Expr | None:
        """The layer that computes `data`, with the affine map in its weight and bias; None when there is no such."""
        if self.uses[data] != 1:
            return None
        producer, bias = data, np.zeros_like(scale)
        value: Expr = self.values.get(data)
        if is_op(value, "relax.add"):
            added = constant_value(value.args[1])
            if added is None or self.uses[value.args[0]] != 1 or not _per_channel(added, data, axis):
                return None
            producer, bias = value.args[0], np.broadcast_to(added.reshape(-1), scale.shape)
            value = self.values.get(producer)
        weight = None if value is None else _scaled_weight(value, axis, scale)
        if weight is None:
            return None
        total = (bias * scale + shift).astype(np.float32)
        return op.add(emit(with_weight(value, weight), producer.name), constant(_shaped(total, data, axis)))


def _use_counts(module: Module) -> Counter[Var]:
    uses: Counter[Var] = Counter(main_results(module))
    for binding in main_bindings(module) or []:
        uses.update(variables_of(binding.value))
    return uses


def _scale_and_shift(norm: Expr) -> tuple[Array, Array] | None:
    parameters = [constant_value(arg) for arg in norm.args[1:]]
    if any(parameter is None for parameter in parameters) or norm.attrs.training:
        return None
    gamma, beta, mean, variance = (np.asarray(parameter, np.float64) for parameter in parameters)
    variance = variance + norm.attrs.epsilon
    if not (variance > 0).all():
        return None
    scale = (gamma if norm.attrs.scale else np.ones_like(gamma)) / np.sqrt(variance)
    shift = (beta if norm.attrs.center else np.zeros_like(beta)) - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def _scaled_weight(layer: Expr, axis: int, scale: Array) -> Array | None:
    """The weight of `layer` with its output channels scaled; None when `layer` is not foldable."""
    if not is_op(layer, *_CONVOLUTIONS, *_TRANSPOSED, _MATMUL):
        return None
    weight = constant_value(layer.args[1])
    if weight is None:
        return None
    if is_op(layer, _MATMUL):
        return weight * scale if weight.ndim == 2 and axis == len(shape_of(layer.args[0]) or ()) - 1 else None
    spatial = (1,) * (weight.ndim - 2)
    layout = layer.attrs.kernel_layout
    if is_op(layer, *_CONVOLUTIONS) and layout.startswith("OI") and axis == 1:
        return weight * scale.reshape(-1, 1, *spatial)
    if is_op(layer, *_TRANSPOSED) and layout.startswith("IO") and axis == 1:
        groups = int(layer.attrs.groups)
        grouped = weight.reshape(groups, -1, *weight.shape[1:]) * scale.reshape(groups, 1, -1, *spatial)
        return grouped.reshape(weight.shape)
    return None


def _per_channel(added: Array, data: Expr, axis: int) -> bool:
    """Whether adding `added` to `data` adds one number per channel."""
    rank = len(shape_of(data) or ())
    shape = (1,) * (rank - added.ndim) + added.shape
    return len(shape) == rank and all(size == 1 for index, size in enumerate(shape) if index != axis)


def _shaped(values: Array, data: Expr, axis: int) -> Array:
    """`values` [channels] so that it broadcasts along `axis` of `data`; it stays a vector on the last axis."""
    rank = len(shape_of(data) or ())
    return values if axis == rank - 1 else values.reshape([-1 if index == axis else 1 for index in range(rank)])


def _affine(data: Expr, axis: int, scale: Array, shift: Array, emit: Emit) -> Expr:
    scaled = emit(op.multiply(data, constant(_shaped(scale, data, axis))), "scaled")
    return op.add(scaled, constant(_shaped(shift, data, axis)))
