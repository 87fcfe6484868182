"""Resizing, as PyTorch computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pconvgen.errors import UnsupportedError
from pconvgen.frontend import taps
from pconvgen.frontend.torch.calls import arguments
from pconvgen.passes.resizes import Taps, resample
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

_HALF = np.float32(0.5)

UPSAMPLING = {
    "upsample_nearest1d": "nearest of signals",
    "upsample_nearest2d": "nearest of images",
    "upsample_nearest3d": "nearest of volumes",
    **{f"_upsample_nearest_exact{rank}d": "nearest-exact" for rank in (1, 2, 3)},
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "linear",
    "upsample_trilinear3d": "linear",
    "upsample_bicubic2d": "cubic",
    "_upsample_bilinear2d_aa": "smooth linear",
    "_upsample_bicubic2d_aa": "smooth cubic",
}
"""Operator -> how it computes an element from those around its place."""

_KEEPING = ("nearest of images", "linear", "smooth linear", "smooth cubic")
"""Methods that leave an axis alone whose size stays the same, whatever its factor."""


def upsample(node: Node, importer: ExportedProgramImporter, method: str) -> Expr:
    """interpolate() by one of the methods in UPSAMPLING."""
    args = arguments(node)
    data = importer.env[node.args[0]]
    before, after = ([int(size) for size in shape][2:] for shape in (data.ty.shape, node.meta["val"].shape))
    factors = args.get("scale_factors")
    if factors is None:
        factors = [value for name, value in args.items() if name.startswith("scales")] or None
    if method.startswith("smooth") and after[-1] == 1 and before[0] != after[0]:
        raise UnsupportedError("antialias to a width of 1, for which PyTorch's answers differ by the memory format")
    axes: dict[int, Taps] = {}
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        # A size wins over factors; a factor counts as it is given, whatever size it is rounded to.
        factor = factors[axis] if factors is not None and args.get("output_size") is None else None
        axes[2 + axis] = _taps(method, old, new, factor, bool(args.get("align_corners", False)))
    return importer.block_builder.emit(resample(data, axes))


def _taps(method: str, old: int, new: int, factor: float | None, align: bool) -> Taps:
    """What an axis of `old` elements reads for `new` ones; places are float32, as they are rounded there."""
    grid = np.arange(new, dtype=np.float32)
    step = np.float32(1 / factor) if factor else np.float32(old) / np.float32(new)
    if align:
        step = np.float32(old - 1) / np.float32(new - 1) if new > 1 else np.float32(0)
    places = grid * step if align else (grid + _HALF) * step - _HALF
    if old == new and method in _KEEPING:
        return taps.identity(new)
    if method == "nearest of images" and new == 2 * old:
        return taps.nearest(np.floor(grid / 2))
    if method.startswith("nearest of"):
        return taps.nearest(np.floor(grid * step))
    if method == "nearest-exact":
        return taps.nearest(np.floor(places + _HALF))
    if method == "linear":
        return taps.linear(np.maximum(places, 0))
    if method == "cubic":
        return taps.cubic(places, -0.75)
    if align:
        raise UnsupportedError("antialias with align_corners")
    kernel, support = (taps.linear_kernel, 1) if method == "smooth linear" else (taps.cubic_kernel(-0.5), 2)
    return taps.smoothed(places, float(step), kernel, support, old)
