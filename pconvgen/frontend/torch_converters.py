"""Conversions of ATen operators that TVM's importer lacks, gets wrong, or spells in several ways.

CONVERTERS is a `custom_convert_map` of `from_exported_program`; the reason for each row stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

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
    result = importer.block_builder.emit(call, node.meta[LAYER_META])
    if bias is None:
        return result
    if len(bias_shape) > 1:
        bias = importer.block_builder.emit(relax.op.reshape(bias, bias_shape))
    return importer.block_builder.emit(relax.op.add(result, bias))


def _convolution(node: Any, importer: Any) -> Any:
    args = arguments(node)
    data, weight = _expr(importer, args["input"]), _expr(importer, args["weight"])
    rank = len(data.ty.shape)
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
    data = _expr(importer, args["input"])
    rank = len(data.ty.shape)
    call = _CONV_TRANSPOSE[rank](
        data,
        _expr(importer, args["weight"]),
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


def _upsample_nearest(node: Any, importer: Any) -> Any:
    return _resize(node, importer, "nearest_neighbor", "asymmetric")


def _upsample_bilinear(node: Any, importer: Any) -> Any:
    align = arguments(node)["align_corners"]
    return _resize(node, importer, "linear", "align_corners" if align else "half_pixel")


def _resize(node: Any, importer: Any, method: str, coordinates: str) -> Any:
    size = [int(extent) for extent in node.meta["val"].shape[2:]]
    data = importer.env[node.args[0]]
    call = relax.op.image.resize2d(
        data, size, method=method, coordinate_transformation_mode=coordinates, rounding_method="floor"
    )
    return importer.block_builder.emit(call)


def _avg_pool(node: Any, importer: Any) -> Any:
    args = arguments(node)
    if args["divisor_override"] is not None:
        raise NotImplementedError("avg_pool2d with divisor_override")
    call = relax.op.nn.avg_pool2d(
        importer.env[args["self"]],
        pool_size=list(args["kernel_size"]),
        strides=list(args["stride"] or args["kernel_size"]),
        padding=list(args["padding"]),
        ceil_mode=args["ceil_mode"],
        count_include_pad=args["count_include_pad"],
    )
    return importer.block_builder.emit(call)


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
    "upsample_nearest2d.vec": _upsample_nearest,  # wrong when it shrinks: rounds at pixel centres, torch floors
    "upsample_bilinear2d.vec": _upsample_bilinear,  # wrong size when only scale factors are given and are not whole
    "avg_pool2d.default": _avg_pool,  # wrong: drops divisor_override
}
