"""Reading and writing parts of tensors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.frontend.torch.calls import arguments
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def _from_begin(index: Expr, size: int, emit: Callable[[Expr], Expr]) -> Expr:
    """A tensor of indices without negative ones; what a constant becomes is folded later."""
    below = emit(relax.op.less(index, relax.const(0, str(index.ty.dtype))))
    return emit(relax.op.where(below, emit(relax.op.add(index, relax.const(size, str(index.ty.dtype)))), index))


def index(node: Node, importer: ExportedProgramImporter) -> Expr:
    """data[indices] as NumPy has it: the indices are broadcast and read together, at the place of the first axis if
    their axes are neighbours, else in front."""
    args, emit = arguments(node), importer.block_builder.emit
    data = importer.env[args["self"]]
    shape = [int(size) for size in data.ty.shape]
    axes = [axis for axis, index in enumerate(args["indices"]) if index is not None]
    indices = [importer.env[args["indices"][axis]] for axis in axes]
    if any(str(index.ty.dtype) == "bool" for index in indices):
        raise UnsupportedError("selecting elements by a mask")
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


def index_put(node: Node, importer: ExportedProgramImporter) -> Expr:
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


def select(node: Node, importer: ExportedProgramImporter) -> Expr:
    args, emit = arguments(node), importer.block_builder.emit
    data, axis = importer.env[args["self"]], args["dim"] % len(args["self"].meta["val"].shape)
    index = args["index"] % int(data.ty.shape[axis])
    part = emit(relax.op.strided_slice(data, axes=[axis], begin=[index], end=[index + 1]))
    return emit(relax.op.squeeze(part, [axis]))


def part(node: Node, importer: ExportedProgramImporter) -> Expr:
    """slice: bounds count from the end where they are negative, and end at the ends; an end before the beginning is
    no element."""
    args, emit = arguments(node), importer.block_builder.emit
    data = importer.env[args["self"]]
    axis, (begin, end, step) = _bounds(args, data)
    if (begin, end, step) == (0, int(data.ty.shape[axis]), 1):
        return data
    return emit(relax.op.strided_slice(data, axes=[axis], begin=[begin], end=[end], strides=[step]))


def replace_part(node: Node, importer: ExportedProgramImporter) -> Expr:
    """slice_scatter: the data where the slice has no elements."""
    args = arguments(node)
    data = importer.env[args["self"]]
    axis, (begin, end, step) = _bounds(args, data)
    if begin == end:
        return data
    source = importer.env[args["src"]]
    return importer.block_builder.emit(relax.op.slice_scatter(data, source, begin, end, step, axis=axis))


def _bounds(args: dict[str, Any], data: Expr) -> tuple[int, tuple[int, int, int]]:
    """The axis, the first element, the one behind the last, and the step."""
    axis = args["dim"] % len(data.ty.shape)
    begin, end, step = slice(args["start"], args["end"], args["step"]).indices(int(data.ty.shape[axis]))
    return axis, (begin, max(begin, end), step)
