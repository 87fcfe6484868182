"""Pooling and reductions to an extreme."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.frontend.torch.calls import arguments
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def avg_pool(node: Node, importer: ExportedProgramImporter, operator: Callable[..., Expr]) -> Expr:
    args = arguments(node)
    if args["divisor_override"] is not None:
        raise UnsupportedError("average pooling with divisor_override")
    call = operator(
        importer.env[args["self"]],
        pool_size=list(args["kernel_size"]),
        strides=list(args["stride"] or args["kernel_size"]),
        padding=list(args["padding"]),
        ceil_mode=args["ceil_mode"],
        count_include_pad=args["count_include_pad"],
    )
    return importer.block_builder.emit(call)


def extreme(node: Node, importer: ExportedProgramImporter, operator: Callable[..., Expr]) -> Expr:
    """amax and amin."""
    args = arguments(node)
    call = operator(importer.env[args["self"]], args["dim"] or None, keepdims=args["keepdim"])
    return importer.block_builder.emit(call)


def extreme_of(
    node: Node, importer: ExportedProgramImporter, operators: tuple[Callable[..., Expr], Callable[..., Expr]]
) -> Expr:
    """max and min along one axis, as (values, indices)."""
    args, emit = arguments(node), importer.block_builder.emit
    data, (value, index) = importer.env[args["self"]], operators
    values = emit(value(data, args["dim"], keepdims=args["keepdim"]))
    return emit(relax.Tuple([values, emit(index(data, args["dim"], keepdims=args["keepdim"]))]))


def adaptive_max_pool(node: Node, importer: ExportedProgramImporter) -> Expr:
    """The largest element of each window, as the first of (values, indices)."""
    data, emit = importer.env[node.args[0]], importer.block_builder.emit
    after = [int(size) for size in node.meta["val"][0].shape]
    spatial = len(node.args[1])
    before = [int(size) for size in data.ty.shape]
    if any(old % new for old, new in zip(before, after, strict=True)):
        raise UnsupportedError("adaptive max pooling whose windows differ in size")
    windows = [[new, old // new] for old, new in zip(before[-spatial:], after[-spatial:], strict=True)]
    if len(before) == 4 and spatial == 2:
        sizes = [size for _, size in windows]
        return emit(relax.Tuple([emit(relax.op.nn.max_pool2d(data, sizes, sizes))]))
    kept = before[:-spatial]
    split = emit(relax.op.reshape(data, kept + [size for window in windows for size in window]))
    largest = emit(relax.op.max(split, [len(kept) + 2 * axis + 1 for axis in range(spatial)]))
    return emit(relax.Tuple([largest]))
