"""ONNX Resize where TVM's importer reads other places than the model, or ignores an attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.frontend.resize import resample
from pconvgen.tvm_compat import Emit, constant_value, shape_of

Array = NDArray[Any]

_ROUNDED: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - np.float32(0.5)),
    "round_prefer_ceil": lambda places: np.floor(places + np.float32(0.5)),
}


def resize(inputs: Any, attrs: dict[str, Any], emit: Emit) -> Any | None:
    """The resized tensor; None when TVM's importer does it well. An empty list of scales is taken out of `inputs`.

    Raises NotImplementedError for attributes that neither knows.
    """
    for name in ("antialias", "axes", "keep_aspect_ratio_policy"):
        if attrs.get(name, 0) not in (0, b"stretch"):
            raise NotImplementedError(f"the attribute {name}")
    if inputs[2] is None:
        return None
    scales = constant_value(inputs[2])
    if scales is None or not scales.size:
        # What opset 11 has in place of scales that are not given.
        inputs[2] = None
        return None
    shape = shape_of(inputs[0]) or ()
    axes = [(size, np.float32(scale)) for size, scale in zip(shape, scales, strict=True)][2:]
    if all(int(size * scale) == size * scale for size, scale in axes):
        return None
    mode = _text(attrs, "mode", "nearest")
    coordinates = _text(attrs, "coordinate_transformation_mode", "half_pixel")
    if attrs.get("exclude_outside", 0):
        raise NotImplementedError("the attribute exclude_outside")
    places = [_places(size, scale, coordinates) for size, scale in axes]
    if mode == "nearest":
        mode = "nearest_neighbor"
        places = [_ROUNDED[_text(attrs, "nearest_mode", "round_prefer_floor")](read) for read in places]
    return resample(inputs[0], places, mode, emit, attrs.get("cubic_coeff_a", -0.75))


def _places(size: int, scale: Any, coordinates: str) -> Array:
    """Where the elements of an axis are read."""
    after = int(size * scale)
    grid = np.arange(after, dtype=np.float32)
    if coordinates == "asymmetric":
        return grid / scale
    if coordinates == "align_corners":
        return grid * np.float32((size - 1) / max(size * scale - 1, 1))
    if coordinates == "pytorch_half_pixel" and after == 1:
        return grid
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        return (grid + np.float32(0.5)) / scale - np.float32(0.5)
    raise NotImplementedError(f"the coordinates {coordinates} with factors that are not whole")


def _text(attrs: dict[str, Any], name: str, missing: str) -> str:
    return attrs.get(name, missing.encode()).decode()
