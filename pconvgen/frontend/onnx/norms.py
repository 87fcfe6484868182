"""Normalisation, as operators that later passes compute without cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op

from pconvgen.tvm_compat.relax import Expr, constant, constant_value, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit
from pconvgen.values.dtype import DType

_NEVER = 1e-18
"""MeanVarianceNormalization adds 1e-9 to the deviation, which matters only where there is none."""


def instance_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    data, (scale, shift) = _single(inputs[0], emit), (_single(value, emit) for value in inputs[1:3])
    axes = list(range(2, len(shape_of(data) or ())))
    call = op.nn.instance_norm(data, scale, shift, channel_axis=1, axes=axes, epsilon=attrs.get("epsilon", 1e-5))
    return _like(call, inputs[0], emit)


def layer_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """Also with a scale that is broadcast, and with means and inverse deviations as further results."""
    data = _single(inputs[0], emit)
    shape = shape_of(data) or ()
    axes = list(range(attrs.get("axis", -1) % len(shape), len(shape)))
    sizes, epsilon = tuple(shape[axis] for axis in axes), attrs.get("epsilon", 1e-5)
    scale = _broadcast(inputs[1], sizes, emit)
    shift = constant(np.zeros(sizes, np.float32)) if inputs[2] is None else _broadcast(inputs[2], sizes, emit)
    result = emit(_like(op.nn.layer_norm(data, scale, shift, axes=axes, epsilon=epsilon), inputs[0], emit))
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return result
    variance = emit(op.add(emit(op.variance(data, axes, True)), constant(np.float32(epsilon))))
    results = [result, emit(op.mean(data, axes, True)), emit(op.rsqrt(variance))]
    return relax.Tuple(results[: attrs["tvm_custom"]["num_outputs"]])


def group_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """With scales of channels (opset 21) or of groups (18)."""
    data, groups = _single(inputs[0], emit), int(attrs["num_groups"])
    shape = shape_of(data) or ()
    affine = []
    for value in (_single(value, emit) for value in inputs[1:3]):
        size = (shape_of(value) or ())[0]
        affine.append(value if size == shape[1] else emit(op.repeat(value, shape[1] // size, 0)))
    call = op.nn.group_norm(
        data,
        *affine,
        num_groups=groups,
        channel_axis=1,
        axes=list(range(2, len(shape))),
        epsilon=attrs.get("epsilon", 1e-5),
    )
    return _like(call, inputs[0], emit)


def mean_variance_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    data = _single(inputs[0], emit)
    shape = shape_of(data) or ()
    axes = sorted(axis % len(shape) for axis in attrs.get("axes", (0, 2, 3)))
    if len(axes) == len(shape):
        row = emit(op.nn.instance_norm(emit(op.reshape(data, [1, 1, -1])), *_plain(1), 1, [2], _NEVER))
        return _like(op.reshape(row, shape), inputs[0], emit)
    kept = next(axis for axis in range(len(shape)) if axis not in axes)
    return _like(op.nn.instance_norm(data, *_plain(shape[kept]), kept, axes, _NEVER), inputs[0], emit)


def batch_normalization(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr | None:
    """In training mode: by the statistics of the batch, with new running ones as further results."""
    if not attrs.get("training_mode", 0):
        return None
    data, (scale, shift, mean, variance) = inputs[0], list(inputs)[1:5]
    axes = [axis for axis in range(len(shape_of(data) or ())) if axis != 1]
    result = emit(
        op.nn.instance_norm(data, scale, shift, channel_axis=1, axes=axes, epsilon=attrs.get("epsilon", 1e-5))
    )
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return result
    kept = np.float32(attrs.get("momentum", 0.9))

    def running(old: Expr, new: Expr) -> Expr:
        parts = (emit(op.multiply(old, constant(kept))), emit(op.multiply(emit(new), constant(np.float32(1) - kept))))
        return emit(op.add(*parts))

    further = [running(mean, op.mean(data, axes)), running(variance, op.variance(data, axes))]
    return relax.Tuple([result, *further][: attrs["tvm_custom"]["num_outputs"]])


def _plain(channels: int) -> list[Expr]:
    return [constant(np.full(channels, value, np.float32)) for value in (1, 0)]


def _single(value: Expr, emit: Emit) -> Expr:
    """In float32, as sums are."""
    if dtype_of(value) == DType.FLOAT32:
        return value
    array = constant_value(value)
    return emit(op.astype(value, "float32")) if array is None else constant(array.astype(np.float32))


def _like(call: Expr, data: Expr, emit: Emit) -> Expr:
    return call if dtype_of(data) == DType.FLOAT32 else op.astype(emit(call), dtype_of(data))


def _broadcast(value: Expr, shape: tuple[int, ...], emit: Emit) -> Expr:
    value = _single(value, emit)
    array = constant_value(value)
    if array is not None:
        return constant(np.broadcast_to(array, shape))
    return value if shape_of(value) == shape else emit(op.broadcast_to(value, shape))
