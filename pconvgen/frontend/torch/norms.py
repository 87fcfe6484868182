"""Normalisation, variances and standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax
from tvm.relax import op

from pconvgen.frontend.torch.calls import arguments, expression
from pconvgen.tvm_compat.relax import Expr, constant, dtype_of, shape_of

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def group_norm(node: Node, importer: ExportedProgramImporter) -> Expr:
    """Also without scale or shift, and with the groups' means and inverse deviations as further results."""
    args = arguments(node)
    data = importer.env[args["input"]]
    shape = shape_of(data) or ()
    groups = args["num_groups"] if "num_groups" in args else args["group"]
    result = importer.block_builder.emit(
        op.nn.group_norm(
            data,
            *_affine(importer, args, data, [shape[1]]),
            num_groups=groups,
            channel_axis=1,
            axes=list(range(2, len(shape))),
            epsilon=args["eps"],
        )
    )
    if "num_groups" in args:
        return result
    grouped = importer.block_builder.emit(op.reshape(data, [shape[0], groups, -1]))
    return (result, *_statistics(importer, grouped, [2], args["eps"], keepdims=False))


def layer_norm(node: Node, importer: ExportedProgramImporter) -> Expr:
    """Also without scale or shift, and with means and inverse deviations as further results."""
    args = arguments(node)
    data, sizes = importer.env[args["input"]], list(args["normalized_shape"])
    axes = list(range(-len(sizes), 0))
    result = importer.block_builder.emit(
        op.nn.layer_norm(data, *_affine(importer, args, data, sizes), axes=axes, epsilon=args["eps"])
    )
    if node.target.__name__ == "layer_norm.default":
        return result
    return (result, *_statistics(importer, data, axes, args["eps"], keepdims=True))


def instance_norm(node: Node, importer: ExportedProgramImporter) -> Expr:
    """By the statistics of each plane, or by running ones where the layer has them."""
    args = arguments(node)
    data = importer.env[args["input"]]
    shape = shape_of(data) or ()
    affine = _affine(importer, args, data, [shape[1]])
    if args["use_input_stats"]:
        return importer.block_builder.emit(_instance_norm(data, affine, range(2, len(shape)), args["eps"]))
    running = [importer.env[args[name]] for name in ("running_mean", "running_var")]
    norm = importer.block_builder.emit(
        op.nn.batch_norm(data, *affine, *running, axis=1, epsilon=args["eps"], training=False)
    )
    return importer.block_builder.emit(norm[0])


def batch_norm_without_statistics(node: Node, importer: ExportedProgramImporter) -> Expr:
    """By the statistics of the whole batch: what BatchNorm2d(track_running_stats=False) computes."""
    args = arguments(node)
    data = importer.env[args["input"]]
    shape = shape_of(data) or ()
    axes = [0, *range(2, len(shape))]
    affine = _affine(importer, args, data, [shape[1]])
    result = importer.block_builder.emit(_instance_norm(data, affine, axes, args["eps"]))
    return (result, *_statistics(importer, data, axes, args["eps"], keepdims=False))


def deviation(node: Node, importer: ExportedProgramImporter) -> Expr:
    """var and std in all their forms, and with the mean as a second result."""
    args, emit = arguments(node), importer.block_builder.emit
    data = importer.env[args["self"]]
    shape = shape_of(data) or ()
    dims = args.get("dim")
    axes = list(range(len(shape))) if not dims and dims != 0 else [dims] if isinstance(dims, int) else list(dims)
    correction = args["correction"] if "correction" in args else int(args["unbiased"])
    count = math.prod(shape[axis] for axis in axes)
    keepdims = bool(args.get("keepdim"))
    value = emit(op.variance(data, axes, keepdims))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.float32(count) / np.float32(max(0, count - (1 if correction is None else correction)))
    if factor != 1:
        value = emit(op.multiply(value, relax.const(float(factor), dtype_of(value))))
    name = node.target.__name__
    if name.startswith("std"):
        value = emit(op.sqrt(value))
    return (value, emit(op.mean(data, axes, keepdims))) if "_mean" in name else value


def _instance_norm(data: Expr, affine: Sequence[Expr], axes: Sequence[int], epsilon: float) -> Expr:
    return op.nn.instance_norm(data, *affine, channel_axis=1, axes=list(axes), epsilon=epsilon)


def _affine(importer: ExportedProgramImporter, args: dict[str, Any], data: Expr, shape: list[int]) -> list[Expr]:
    """Scale and shift in the data's type, ones and zeros where the layer has none."""
    given = [expression(importer, args[name]) for name in ("weight", "bias")]
    plain = (constant(np.full(shape, value, np.float32)) for value in (1, 0))
    values = [default if value is None else value for value, default in zip(given, plain, strict=True)]
    same = [dtype_of(value) == dtype_of(data) for value in values]
    emit = importer.block_builder.emit
    return [value if fits else emit(op.astype(value, dtype_of(data))) for value, fits in zip(values, same, strict=True)]


def _statistics(
    importer: ExportedProgramImporter, data: Expr, axes: list[int], epsilon: float, *, keepdims: bool
) -> tuple[Expr, Expr]:
    """Means and inverse standard deviations; nothing is left of them where nobody reads them."""
    emit = importer.block_builder.emit
    variance = emit(op.variance(data, axes, keepdims))
    variance = emit(op.add(variance, relax.const(epsilon, dtype_of(variance))))
    return emit(op.mean(data, axes, keepdims)), emit(op.rsqrt(variance))
