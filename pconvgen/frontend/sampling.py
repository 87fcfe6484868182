"""Sampling images at places that are computed: grids, affine grids, and boxes, as PyTorch and onnxruntime have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.tvm_compat.relax import Expr, constant, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit


def grid_sample(data: Expr, grid: Expr, method: str, padding: str, align_corners: bool) -> Expr:
    """`data` [batch, channels, *sizes] at the places `grid` [batch, *outputs, axes], whose axes count from the last.

    `method` is bilinear, nearest or bicubic, `padding` zeros, border or reflection.
    Raises UnsupportedError for a cubic in volumes, which PyTorch does not know either.
    """
    axes = len(shape_of(data) or ()) - 2
    if axes not in (2, 3) or (axes == 3 and method == "bicubic"):
        raise UnsupportedError(f"grid sampling of {axes} axes, {method}")
    places = relax.op.permute_dims(grid, [0, axes + 1, *range(1, axes + 1)])
    layout = "NCHW" if axes == 2 else "NCDHW"
    return relax.op.image.grid_sample(data, places, method, layout, padding, align_corners)


def affine_grid(theta: Expr, sizes: Sequence[int], align_corners: bool, emit: Emit) -> Expr:
    """The places [batch, *sizes, axes] where affine maps `theta` [batch, axes, axes + 1] read."""
    axes, batch = len(sizes), (shape_of(theta) or ())[0]

    def column(number: int) -> Expr:
        part = relax.op.strided_slice(theta, axes=[2], begin=[number], end=[number + 1])
        return emit(relax.op.reshape(emit(part), [batch, *[1] * axes, axes]))

    total = column(axes)
    for axis, size in enumerate(sizes):
        edge = 1.0 if align_corners else (size - 1) / size
        shares = np.linspace(-edge, edge, size) if size > 1 else np.zeros(1)
        shape = [size if other == axis else 1 for other in range(axes)]
        along = constant(shares.reshape(1, *shape, 1).astype(dtype_of(theta)))
        # The last axis has the first column.
        total = emit(relax.op.add(total, emit(relax.op.multiply(column(axes - 1 - axis), along))))
    return total


def roi_align(
    data: Expr,
    batches: Expr,
    boxes: Expr,
    output: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
    emit: Emit,
) -> Expr:
    """The mean pixels under `boxes` [count, 4] of the images `batches` [count, 1], resized to `output`.

    Boxes are scaled, then moved by half a pixel where they are `aligned`.
    """
    dtype = dtype_of(boxes)
    boxes = emit(relax.op.multiply(boxes, relax.const(scale, dtype)))
    if aligned:
        boxes = emit(relax.op.subtract(boxes, relax.const(0.5, dtype)))
    rows = emit(relax.op.concat([emit(relax.op.astype(batches, dtype)), boxes], axis=1))
    means = relax.op.vision.roi_align(data, rows, output, 1.0, ratio, aligned, "NCHW", "avg")
    if not aligned or ratio > 0:
        return means
    # No pixels are the mean of boxes without an area: 0 is what runtimes give.
    corners = [relax.op.strided_slice(boxes, axes=[1], begin=[at], end=[at + 2]) for at in (0, 2)]
    smallest = emit(relax.op.min(emit(relax.op.subtract(emit(corners[1]), emit(corners[0]))), axis=1))
    empty = relax.op.less_equal(smallest, relax.const(0, dtype))
    wide = emit(relax.op.reshape(emit(empty), [-1, 1, 1, 1]))
    return relax.op.where(wide, relax.const(0, dtype_of(data)), emit(means))
