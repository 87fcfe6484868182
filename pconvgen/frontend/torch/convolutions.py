"""Convolutions and linear layers, whose variables get the names of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend.torch.calls import arguments, expression
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

_CONV = {3: relax.op.nn.conv1d, 4: relax.op.nn.conv2d, 5: relax.op.nn.conv3d}
_CONV_TRANSPOSE = {3: relax.op.nn.conv1d_transpose, 4: relax.op.nn.conv2d_transpose, 5: relax.op.nn.conv3d_transpose}
LAYER_META = "pconvgen.layer"
"""Key of node.meta that holds the identifier to give to the variable of a convolution or linear layer."""


def emit_layer(
    node: Node, importer: ExportedProgramImporter, call: Expr, bias: Expr, bias_shape: Sequence[int]
) -> Expr:
    """Bind `call` to a variable with the layer's name and add the bias."""
    emit = importer.block_builder.emit
    result = emit(call, node.meta[LAYER_META])
    if bias is not None:
        if len(bias_shape) > 1:
            bias = emit(relax.op.reshape(bias, bias_shape))
        result = emit(relax.op.add(result, bias))
    shape = list(node.meta["val"].shape)
    return result if len(result.ty.shape) == len(shape) else emit(relax.op.reshape(result, shape))


def _batched(node: Node, importer: ExportedProgramImporter, rank: int) -> Expr:
    """The input of a convolution; an image that comes alone becomes a batch of one."""
    data = importer.env[node]
    return data if node.meta["val"].dim() == rank else importer.block_builder.emit(relax.op.expand_dims(data, 0))


def convolution(node: Node, importer: ExportedProgramImporter) -> Expr:
    args = arguments(node)
    weight = expression(importer, args["weight"])
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
    return emit_layer(node, importer, call, expression(importer, args["bias"]), [1, -1] + [1] * (rank - 2))


def conv_transpose(node: Node, importer: ExportedProgramImporter) -> Expr:
    args = arguments(node)
    weight = expression(importer, args["weight"])
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
    return emit_layer(node, importer, call, expression(importer, args["bias"]), [1, -1] + [1] * (rank - 2))


def linear(node: Node, importer: ExportedProgramImporter) -> Expr:
    args = arguments(node)
    weight = importer.block_builder.emit(relax.op.permute_dims(expression(importer, args["weight"])))
    call = relax.op.matmul(expression(importer, args["input"]), weight)
    return emit_layer(node, importer, call, expression(importer, args["bias"]), [-1])
