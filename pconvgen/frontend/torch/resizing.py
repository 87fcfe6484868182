"""Upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from pconvgen.frontend.resize import resample
from pconvgen.frontend.torch.calls import arguments


def upsample(node: Any, importer: Any, method: str) -> Any:
    args = arguments(node)
    data, align = importer.env[node.args[0]], args.get("align_corners", False)
    before, after = ([int(size) for size in shape][2:] for shape in (data.ty.shape, node.meta["val"].shape))
    # A torch size wins over factors; a factor counts as it is given, whatever size it is rounded to.
    factors = None if args["output_size"] is not None or align else args["scale_factors"]
    rounded = factors and any(old * by != new for old, by, new in zip(before, factors, after, strict=True))
    # resize2d divides by zero where the corners of one pixel are aligned.
    if rounded or (align and 1 in after):
        places = [_places(new, by, method) for new, by in zip(after, factors or (0, 0), strict=True)]
        if align:
            spans = zip(before, after, strict=True)
            places = [np.arange(new) * (old - 1) / max(new - 1, 1) for old, new in spans]
        return resample(data, places, method, importer.block_builder.emit)
    half = "asymmetric" if method == "nearest_neighbor" else "half_pixel"
    call = relax.op.image.resize2d(
        data,
        after,
        method=method,
        coordinate_transformation_mode="align_corners" if align else half,
        rounding_method="floor",
        cubic_alpha=-0.75,
    )
    return importer.block_builder.emit(call)


def _places(size: int, factor: float, method: str) -> Any:
    """Where torch reads the elements of an axis that it resizes by a factor; in float32, as it rounds there."""
    shift = np.float32(0 if method == "nearest_neighbor" else 0.5)
    step = np.float32(1 / factor) if factor else np.float32(0)
    return (np.arange(size, dtype=np.float32) + shift) * step - shift
