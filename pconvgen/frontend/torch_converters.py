"""Conversions of ATen operators that TVM's importer lacks, gets wrong, or spells in several ways.

CONVERTERS is a `custom_convert_map` of `from_exported_program`; the reason for each row stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from tvm import relax

from pconvgen.frontend.resize import resample
from pconvgen.tvm_compat import constant

Converter = Callable[[Any, Any], Any]

_CONV = {3: relax.op.nn.conv1d, 4: relax.op.nn.conv2d, 5: relax.op.nn.conv3d}
_CONV_TRANSPOSE = {3: relax.op.nn.conv1d_transpose, 4: relax.op.nn.conv2d_transpose}
LAYER_META = "pconvgen.layer"
"""Key of node.meta that holds the identifier to give to the variable of a convolution or linear layer."""


def arguments(node: Any) -> dict[str, Any]:
    """All arguments of a call of an ATen operator by name, defaults filled in."""
    named = {}
    for index, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        named[argument.name] = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)
    return named


def _expr(importer: Any, node: Any) -> Any:
    return None if node is None else importer.env[node]


def _emit_layer(node: Any, importer: Any, call: Any, bias: Any, bias_shape: Sequence[int]) -> Any:
    """Bind `call` to a variable with the layer's name and add the bias."""
    emit = importer.block_builder.emit
    result = emit(call, node.meta[LAYER_META])
    if bias is not None:
        if len(bias_shape) > 1:
            bias = emit(relax.op.reshape(bias, bias_shape))
        result = emit(relax.op.add(result, bias))
    shape = list(node.meta["val"].shape)
    return result if len(result.ty.shape) == len(shape) else emit(relax.op.reshape(result, shape))


def _batched(node: Any, importer: Any, rank: int) -> Any:
    """The input of a convolution; an image that comes alone becomes a batch of one."""
    data = importer.env[node]
    return data if node.meta["val"].dim() == rank else importer.block_builder.emit(relax.op.expand_dims(data, 0))


def _convolution(node: Any, importer: Any) -> Any:
    args = arguments(node)
    weight = _expr(importer, args["weight"])
    rank = len(weight.ty.shape)
    data = _batched(args["input"], importer, rank)
    padding = args["padding"]
    if padding == "valid":
        padding = [0] * (rank - 2)
    elif padding == "same":
        totals = [
            int(rate) * (int(size) - 1) for rate, size in zip(args["dilation"], list(weight.ty.shape)[2:], strict=True)
        ]
        padding = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    call = _CONV[rank](
        data,
        weight,
        strides=list(args["stride"]),
        padding=list(padding),
        dilation=list(args["dilation"]),
        groups=args["groups"],
    )
    return _emit_layer(node, importer, call, _expr(importer, args["bias"]), [1, -1] + [1] * (rank - 2))


def _conv_transpose(node: Any, importer: Any) -> Any:
    args = arguments(node)
    weight = _expr(importer, args["weight"])
    rank = len(weight.ty.shape)
    call = _CONV_TRANSPOSE[rank](
        _batched(args["input"], importer, rank),
        weight,
        strides=list(args["stride"]),
        padding=list(args["padding"]),
        output_padding=list(args["output_padding"]),
        dilation=list(args["dilation"]),
        groups=args["groups"],
    )
    return _emit_layer(node, importer, call, _expr(importer, args["bias"]), [1, -1] + [1] * (rank - 2))


def _linear(node: Any, importer: Any) -> Any:
    args = arguments(node)
    weight = importer.block_builder.emit(relax.op.permute_dims(_expr(importer, args["weight"])))
    call = relax.op.matmul(_expr(importer, args["input"]), weight)
    return _emit_layer(node, importer, call, _expr(importer, args["bias"]), [-1])


def _relu6(node: Any, importer: Any) -> Any:
    return importer.block_builder.emit(relax.op.clip(importer.env[node.args[0]], 0, 6))


def _channel_shuffle(node: Any, importer: Any) -> Any:
    data, groups = importer.env[node.args[0]], node.args[1]
    batch, channels, *spatial = (int(size) for size in data.ty.shape)
    emit = importer.block_builder.emit
    split = emit(relax.op.reshape(data, [batch, groups, channels // groups, *spatial]))
    swapped = emit(relax.op.permute_dims(split, [0, 2, 1, *range(3, 3 + len(spatial))]))
    return emit(relax.op.reshape(swapped, [batch, channels, *spatial]))


def _upsample(node: Any, importer: Any, method: str) -> Any:
    args = arguments(node)
    data, align = importer.env[node.args[0]], args.get("align_corners", False)
    before, after = ([int(size) for size in shape][2:] for shape in (data.ty.shape, node.meta["val"].shape))
    # A torch size wins over factors; a factor counts as it is given, whatever size it is rounded to.
    factors = None if args["output_size"] is not None or align else args["scale_factors"]
    rounded = factors and any(old * by != new for old, by, new in zip(before, factors, after, strict=True))
    # resize2d divides by zero where the corners of one pixel are aligned.
    if rounded or (align and 1 in after):
        places = [_places(new, by, method) for new, by in zip(after, factors or (0, 0), strict=True)]
        if align:
            spans = zip(before, after, strict=True)
            places = [np.arange(new) * (old - 1) / max(new - 1, 1) for old, new in spans]
        return resample(data, places, method, importer.block_builder.emit)
    half = "asymmetric" if method == "nearest_neighbor" else "half_pixel"
    call = relax.op.image.resize2d(
        data,
        after,
        method=method,
        coordinate_transformation_mode="align_corners" if align else half,
        rounding_method="floor",
        cubic_alpha=-0.75,
    )
    return importer.block_builder.emit(call)


def _places(size: int, factor: float, method: str) -> Any:
    """Where torch reads the elements of an axis that it resizes by a factor; in float32, as it rounds there."""
    shift = np.float32(0 if method == "nearest_neighbor" else 0.5)
    step = np.float32(1 / factor) if factor else np.float32(0)
    return (np.arange(size, dtype=np.float32) + shift) * step - shift


def _avg_pool(node: Any, importer: Any, operator: Callable[..., Any]) -> Any:
    args = arguments(node)
    if args["divisor_override"] is not None:
        raise NotImplementedError("average pooling with divisor_override")
    call = operator(
        importer.env[args["self"]],
        pool_size=list(args["kernel_size"]),
        strides=list(args["stride"] or args["kernel_size"]),
        padding=list(args["padding"]),
        ceil_mode=args["ceil_mode"],
        count_include_pad=args["count_include_pad"],
    )
    return importer.block_builder.emit(call)


def _scaled_sum(node: Any, importer: Any, operator: Callable[[Any, Any], Any]) -> Any:
    """add or sub: left + alpha * right."""
    args, emit = arguments(node), importer.block_builder.emit
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")

    def operand(value: Any) -> Any:
        if isinstance(value, int | float):
            return relax.const(value, dtype)
        expr = importer.env[value]
        return expr if str(expr.ty.dtype) == dtype else emit(relax.op.astype(expr, dtype))

    left, right = operand(args["self"]), operand(args["other"])
    if args["alpha"] != 1:
        right = emit(relax.op.multiply(right, relax.const(args["alpha"], dtype)))
    return emit(operator(left, right))


def _from_begin(index: Any, size: int, emit: Callable[[Any], Any]) -> Any:
    """A tensor of indices without negative ones; what a constant becomes is folded later."""
    below = emit(relax.op.less(index, relax.const(0, str(index.ty.dtype))))
    return emit(relax.op.where(below, emit(relax.op.add(index, relax.const(size, str(index.ty.dtype)))), index))


def _index(node: Any, importer: Any) -> Any:
    """data[indices] as NumPy has it: the indices are broadcast and read together, at the place of the first axis if
    their axes are neighbours, else in front."""
    args, emit = arguments(node), importer.block_builder.emit
    data = importer.env[args["self"]]
    shape = [int(size) for size in data.ty.shape]
    axes = [axis for axis, index in enumerate(args["indices"]) if index is not None]
    indices = [importer.env[args["indices"][axis]] for axis in axes]
    if any(str(index.ty.dtype) == "bool" for index in indices):
        raise NotImplementedError("selecting elements by a mask")
    indices = [_from_begin(index, shape[axis], emit) for axis, index in zip(axes, indices, strict=True)]
    if len(axes) == 1:
        return emit(relax.op.take(data, indices[0], axes[0], mode="clip"))
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    result = emit(relax.op.index_tensor(emit(relax.op.permute_dims(data, axes + kept)), indices))
    if axes[-1] - axes[0] >= len(axes):
        return result
    found = len(result.ty.shape) - len(kept)
    order = list(range(found, found + len(kept)))
    order[axes[0] : axes[0]] = range(found)
    return emit(relax.op.permute_dims(result, order))


def _index_put(node: Any, importer: Any) -> Any:
    args = arguments(node)
    data = importer.env[args["self"]]
    indices = [
        None if index is None else _from_begin(importer.env[index], int(size), importer.block_builder.emit)
        for index, size in zip(args["indices"], data.ty.shape, strict=False)
    ]
    # TVM's converter takes expressions where a node has nodes.
    values = importer.env[args["values"]]
    given = SimpleNamespace(args=(data, indices, values, args["accumulate"]), kwargs={}, target=node.target)
    return importer._index_put(given)


def _group_norm(node: Any, importer: Any) -> Any:
    args = arguments(node)
    data = importer.env[args["input"]]
    shape = [int(data.ty.shape[1])]
    weight, bias = _expr(importer, args["weight"]), _expr(importer, args["bias"])
    call = relax.op.nn.group_norm(
        data,
        constant(np.ones(shape, np.float32)) if weight is None else weight,
        constant(np.zeros(shape, np.float32)) if bias is None else bias,
        num_groups=args["num_groups"],
        channel_axis=1,
        axes=list(range(2, len(data.ty.shape))),
        epsilon=args["eps"],
    )
    return importer.block_builder.emit(call)


def _extreme(node: Any, importer: Any, operator: Callable[..., Any]) -> Any:
    """amax and amin."""
    args = arguments(node)
    call = operator(importer.env[args["self"]], args["dim"] or None, keepdims=args["keepdim"])
    return importer.block_builder.emit(call)


def _adaptive_max_pool(node: Any, importer: Any) -> Any:
    """The largest element of each window, as the first of (values, indices)."""
    data, emit = importer.env[node.args[0]], importer.block_builder.emit
    after = [int(size) for size in node.meta["val"][0].shape]
    spatial = len(node.args[1])
    before = [int(size) for size in data.ty.shape]
    if any(old % new for old, new in zip(before, after, strict=True)):
        raise NotImplementedError("adaptive max pooling whose windows differ in size")
    windows = [[new, old // new] for old, new in zip(before[-spatial:], after[-spatial:], strict=True)]
    if len(before) == 4 and spatial == 2:
        sizes = [size for _, size in windows]
        return emit(relax.Tuple([emit(relax.op.nn.max_pool2d(data, sizes, sizes))]))
    kept = before[:-spatial]
    split = emit(relax.op.reshape(data, kept + [size for window in windows for size in window]))
    largest = emit(relax.op.max(split, [len(kept) + 2 * axis + 1 for axis in range(spatial)]))
    return emit(relax.Tuple([largest]))


def _select(node: Any, importer: Any) -> Any:
    args, emit = arguments(node), importer.block_builder.emit
    data, axis = importer.env[args["self"]], args["dim"] % len(args["self"].meta["val"].shape)
    index = args["index"] % int(data.ty.shape[axis])
    part = emit(relax.op.strided_slice(data, axes=[axis], begin=[index], end=[index + 1]))
    return emit(relax.op.squeeze(part, [axis]))


CONVERTERS: dict[str, Converter] = {
    "conv1d.default": _convolution,  # the layer's name on the variable
    "conv2d.default": _convolution,  # the layer's name on the variable
    "conv3d.default": _convolution,  # the layer's name on the variable
    "conv1d.padding": _convolution,  # lacking: padding="same"
    "conv2d.padding": _convolution,  # lacking: padding="same"
    "conv3d.padding": _convolution,  # lacking: padding="same"
    "conv_transpose1d.default": _conv_transpose,  # the layer's name on the variable
    "conv_transpose2d.input": _conv_transpose,  # the layer's name on the variable
    "linear.default": _linear,  # the layer's name on the variable
    "relu6.default": _relu6,  # one spelling of ReLU6: clip, as nn.ReLU6 is imported
    "channel_shuffle.default": _channel_shuffle,  # lacking
    "native_channel_shuffle.default": _channel_shuffle,  # lacking
    # Wrong when it shrinks: rounds at pixel centres, torch floors.
    "upsample_nearest2d.vec": partial(_upsample, method="nearest_neighbor"),
    # Both wrong when factors are given and are not whole.
    "upsample_bilinear2d.vec": partial(_upsample, method="linear"),
    "upsample_bicubic2d.vec": partial(_upsample, method="cubic"),
    # Both wrong: drop divisor_override.
    "avg_pool2d.default": partial(_avg_pool, operator=relax.op.nn.avg_pool2d),
    "avg_pool3d.default": partial(_avg_pool, operator=relax.op.nn.avg_pool3d),
    # Both wrong: drop alpha.
    "add.Tensor": partial(_scaled_sum, operator=relax.op.add),
    "sub.Tensor": partial(_scaled_sum, operator=relax.op.subtract),
    "group_norm.default": _group_norm,  # refused without affine weights
    "amax.default": partial(_extreme, operator=relax.op.max),  # lacking
    "amin.default": partial(_extreme, operator=relax.op.min),  # lacking
    "adaptive_max_pool1d.default": _adaptive_max_pool,  # lacking
    "adaptive_max_pool2d.default": _adaptive_max_pool,  # lacking
    # Reads outside of the tensor where an index is negative, and combines indices that are to be read together.
    "index.Tensor": _index,
    "index_put.default": _index_put,  # wrong: writes outside of the tensor where an index is negative
    "select.int": _select,  # wrong: reads before the tensor where the index is negative
}

# What TVM imports although it must not.
REFUSED = frozenset(
    {
        "_upsample_bilinear2d_aa.default",  # without the antialiasing
        "exponential.default",  # as zeros
        "randn.default",  # as numbers that are drawn while compiling
        "randn_like.default",  # likewise
    }
)
