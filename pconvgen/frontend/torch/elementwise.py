"""Arithmetic and activations, and channels that change places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from pconvgen.frontend.torch.calls import arguments


def relu6(node: Any, importer: Any) -> Any:
    return importer.block_builder.emit(relax.op.clip(importer.env[node.args[0]], 0, 6))


def channel_shuffle(node: Any, importer: Any) -> Any:
    data, groups = importer.env[node.args[0]], node.args[1]
    batch, channels, *spatial = (int(size) for size in data.ty.shape)
    emit = importer.block_builder.emit
    split = emit(relax.op.reshape(data, [batch, groups, channels // groups, *spatial]))
    swapped = emit(relax.op.permute_dims(split, [0, 2, 1, *range(3, 3 + len(spatial))]))
    return emit(relax.op.reshape(swapped, [batch, channels, *spatial]))


def scaled_sum(node: Any, importer: Any, operator: Callable[[Any, Any], Any]) -> Any:
    """add or sub: left + alpha * right; of booleans, either."""
    args, emit = arguments(node), importer.block_builder.emit
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")

    def operand(value: Any) -> Any:
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


def rrelu(node: Any, importer: Any) -> Any:
    """Outside of training a leaky ReLU with the mean slope."""
    args = arguments(node)
    slope = (float(args["lower"]) + float(args["upper"])) / 2
    return importer.block_builder.emit(relax.op.nn.leakyrelu(importer.env[args["self"]], slope))
