"""Arithmetic and activations, and channels that change places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend.torch.calls import arguments
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def relu6(node: Node, importer: ExportedProgramImporter) -> Expr:
    return importer.block_builder.emit(relax.op.clip(importer.env[node.args[0]], 0, 6))


def channel_shuffle(node: Node, importer: ExportedProgramImporter) -> Expr:
    data, groups = importer.env[node.args[0]], node.args[1]
    batch, channels, *spatial = (int(size) for size in data.ty.shape)
    emit = importer.block_builder.emit
    split = emit(relax.op.reshape(data, [batch, groups, channels // groups, *spatial]))
    swapped = emit(relax.op.permute_dims(split, [0, 2, 1, *range(3, 3 + len(spatial))]))
    return emit(relax.op.reshape(swapped, [batch, channels, *spatial]))


def scaled_sum(node: Node, importer: ExportedProgramImporter, operator: Callable[[Expr, Expr], Expr]) -> Expr:
    """add or sub: left + alpha * right; of booleans, either."""
    args, emit = arguments(node), importer.block_builder.emit
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")

    def operand(value: Expr) -> Expr:
        if isinstance(value, int | float):
            return relax.const(value, dtype)
        expr = importer.env[value]
        return expr if str(expr.ty.dtype) == dtype else emit(relax.op.astype(expr, dtype))

    left, right = operand(args["self"]), operand(args["other"])
    if dtype == "bool":
        return emit(relax.op.logical_or(left, right))
    if args["alpha"] != 1:
        right = emit(relax.op.multiply(right, relax.const(args["alpha"], dtype)))
    return emit(operator(left, right))


def rrelu(node: Node, importer: ExportedProgramImporter) -> Expr:
    """Outside of training a leaky ReLU with the mean slope."""
    args = arguments(node)
    slope = (float(args["lower"]) + float(args["upper"])) / 2
    return importer.block_builder.emit(relax.op.nn.leakyrelu(importer.env[args["self"]], slope))
