"""Grids and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend import sampling
from pconvgen.frontend.torch.calls import arguments
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

_METHODS = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(node: Node, importer: ExportedProgramImporter) -> Expr:
    args = arguments(node)
    data, grid = importer.env[args["input"]], importer.env[args["grid"]]
    method, padding = _METHODS[args["interpolation_mode"]], _PADDINGS[args["padding_mode"]]
    call = sampling.grid_sample(data, grid, method, padding, args["align_corners"])
    return importer.block_builder.emit(call)


def affine_grid(node: Node, importer: ExportedProgramImporter) -> Expr:
    args = arguments(node)
    sizes = [int(size) for size in args["size"]][2:]
    return sampling.affine_grid(importer.env[args["theta"]], sizes, args["align_corners"], importer.block_builder.emit)


def roi_align(node: Node, importer: ExportedProgramImporter) -> Expr:
    """torchvision::roi_align, whose rows are (image, left, top, right, bottom)."""
    args, emit = arguments(node), importer.block_builder.emit
    rows = importer.env[args["rois"]]
    batches = emit(relax.op.strided_slice(rows, axes=[1], begin=[0], end=[1]))
    boxes = emit(relax.op.strided_slice(rows, axes=[1], begin=[1], end=[5]))
    output = (int(args["pooled_height"]), int(args["pooled_width"]))
    scale, ratio, aligned = args["spatial_scale"], args["sampling_ratio"], args["aligned"]
    data = importer.env[args["input"]]
    return emit(sampling.roi_align(data, batches, boxes, output, scale, ratio, aligned, emit))
