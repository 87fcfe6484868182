"""Grids and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.frontend import sampling
from pconvgen.tvm_compat.relax import Expr, constant_value
from pconvgen.tvm_compat.rewriting import Emit

_METHODS = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr:
    method, padding = attrs.get("mode", b"linear").decode(), attrs.get("padding_mode", b"zeros").decode()
    align = bool(attrs.get("align_corners", 0))
    return sampling.grid_sample(inputs[0], inputs[1], _METHODS.get(method, method), padding, align)


def affine_grid(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    size = constant_value(inputs[1])
    if size is None:
        raise UnsupportedError("a size that depends on data")
    if attrs.get("align_corners", 0) and 1 in size[2:]:
        raise UnsupportedError("align_corners with a size of 1, of which runtimes have different opinions")
    return sampling.affine_grid(inputs[0], [int(each) for each in size[2:]], bool(attrs.get("align_corners", 0)), emit)


def roi_align(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    missing = b"half_pixel" if attrs["tvm_custom"]["opset"] >= 16 else b"output_half_pixel"
    aligned = attrs.get("coordinate_transformation_mode", missing) == b"half_pixel"
    output = (attrs.get("output_height", 1), attrs.get("output_width", 1))
    scale, ratio = attrs.get("spatial_scale", 1.0), attrs.get("sampling_ratio", 0)
    if attrs.get("mode", b"avg") != b"avg":
        raise UnsupportedError("the mode max, of which runtimes have different opinions")
    batches = emit(relax.op.expand_dims(inputs[2], 1))
    return sampling.roi_align(inputs[0], batches, inputs[1], output, scale, ratio, aligned, emit)
