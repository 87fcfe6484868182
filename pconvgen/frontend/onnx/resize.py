"""ONNX Resize, as onnxruntime computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.frontend import taps
from pconvgen.passes.resizes import Taps, resample
from pconvgen.tvm_compat.relax import Expr, constant, constant_value, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit

Array = NDArray[Any]
_HALF = np.float32(0.5)


@dataclass(frozen=True)
class _Axis:
    """An axis of `before` elements resized by the factor `scale` to `after`; `roi` is what is cropped, in shares."""

    before: int
    after: int
    scale: Any
    roi: tuple[float, float]


def resize(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr:
    """The resized tensor. Raises UnsupportedError for what the model computes from data."""
    data = inputs[0]
    shape = list(shape_of(data) or ())
    axes = [axis % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    coordinates, mode = _text(attrs, "coordinate_transformation_mode", "half_pixel"), _text(attrs, "mode", "nearest")
    roi = _given(inputs[1], "roi") if coordinates == "tf_crop_and_resize" else None
    ends = [0.0] * len(axes) + [1.0] * len(axes) if roi is None else [float(end) for end in roi]
    scales, sizes = _given(inputs[2], "scales"), _given(inputs[3], "sizes")
    policy = _text(attrs, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and min(attrs.get("axes", axes)) < 0:
        raise UnsupportedError("keep_aspect_ratio_policy with negative axes, which onnxruntime leaves alone")
    before = [shape[axis] for axis in axes]
    if scales is None:
        if sizes is None:
            raise UnsupportedError("neither scales nor sizes")
        after, factors = _of_sizes(before, [int(size) for size in sizes], policy)
    else:
        factors = [np.float32(scale) for scale in scales]
        after = [int(size * factor) for size, factor in zip(before, factors, strict=True)]
    if len(ends) != 2 * len(axes):
        raise UnsupportedError(f"{len(ends)} values of roi for {len(axes)} axes")
    if after == before:
        return data
    resized: dict[int, Taps] = {}
    outside: list[tuple[int, Array]] = []
    for index, axis in enumerate(axes):
        row = _Axis(before[index], after[index], factors[index], (ends[index], ends[index + len(axes)]))
        if row.scale == 1 or (attrs.get("antialias", 0) and row.after == row.before):
            continue
        places = _PLACES[coordinates](np.arange(row.after, dtype=np.float32), row)
        resized[axis] = _taps(mode, places, row, attrs)
        if coordinates == "tf_crop_and_resize":
            outside.append((axis, (places < 0) | (places > row.before - 1)))
    result = resample(data, resized) if resized else data
    fill = constant(np.array(attrs.get("extrapolation_value", 0.0), dtype_of(data)))
    for axis, mask in outside:
        if mask.any():
            wide = [-1 if other == axis else 1 for other in range(len(shape))]
            result = relax.op.where(constant(mask.reshape(wide)), fill, result)
    return result


def _of_sizes(before: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[int], list[Any]]:
    """The sizes after, and the factors."""
    factors = [np.float32(new) / np.float32(old) for old, new in zip(before, sizes, strict=True)]
    if policy == "stretch":
        return list(sizes), factors
    factor = (min if policy == "not_larger" else max)(factors)
    return [int(np.floor(factor * np.float32(old) + _HALF)) for old in before], [factor] * len(before)


def _taps(mode: str, places: Array, axis: _Axis, attrs: dict[str, Any]) -> Taps:
    size = axis.before if attrs.get("exclude_outside", 0) else None
    a = attrs.get("cubic_coeff_a", -0.75)
    if mode == "nearest":
        rounded = _ROUNDED[_text(attrs, "nearest_mode", "round_prefer_floor")]
        near = [np.clip(rounded(places.astype(np.float64) + shift), 0, axis.before - 1) for shift in (0, -1e-6, 1e-6)]
        symmetric = attrs.get("coordinate_transformation_mode") == b"half_pixel_symmetric"
        if symmetric and not np.array_equal(near[1], near[2]):
            raise UnsupportedError("half_pixel_symmetric with places between two elements, which is up to rounding")
        return taps.nearest(near[0])
    if mode not in ("linear", "cubic"):
        raise UnsupportedError(f"the mode {mode}")
    if attrs.get("antialias", 0):
        kernel, support = (taps.linear_kernel, 1) if mode == "linear" else (taps.cubic_kernel(a), 2)
        return taps.smoothed(places, 1 / float(axis.scale), kernel, support, size)
    return taps.linear(np.clip(places, 0, axis.before - 1)) if mode == "linear" else taps.cubic(places, a, size)


def _symmetric(grid: Array, axis: _Axis) -> Array:
    adjustment = np.float32(axis.after) / (axis.scale * np.float32(axis.before))
    offset = np.float32(axis.before) / 2 * (1 - adjustment)
    return offset + (grid + _HALF) / axis.scale - _HALF


def _crop(grid: Array, axis: _Axis) -> Array:
    begin, end = (np.float32(side) for side in axis.roi)
    last = np.float32(axis.before - 1)
    if axis.after == 1:
        return np.full_like(grid, _HALF * (begin + end) * last)
    return begin * last + grid * (end - begin) * last / np.float32(axis.after - 1)


def _half_pixel(grid: Array, axis: _Axis) -> Array:
    return (grid + _HALF) / axis.scale - _HALF


_PLACES: dict[str, Callable[[Array, _Axis], Array]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": lambda grid, axis: _half_pixel(grid, axis) if axis.after > 1 else grid,
    "half_pixel_symmetric": _symmetric,
    "asymmetric": lambda grid, axis: grid / axis.scale,
    "align_corners": lambda grid, axis: grid * np.float32(axis.before - 1) / np.float32(max(axis.after - 1, 1)),
    "tf_half_pixel_for_nn": lambda grid, axis: (grid + _HALF) / axis.scale,
    "tf_crop_and_resize": _crop,
}
"""Where the elements of an axis are read, in float32, as onnxruntime has it."""

_ROUNDED: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    # A float below a half is a half for onnxruntime, here only.
    "round_prefer_ceil": lambda places: np.floor(places + (0.5 + 1e-6)),
}


def _given(value: Expr | None, name: str) -> Array | None:
    """The values of an optional input; an empty one is what opset 11 has in place of one that is not given."""
    if value is None:
        return None
    array = constant_value(value)
    if array is None:
        if isinstance(value, relax.ShapeExpr):
            return np.array([int(size) for size in value.values])
        raise UnsupportedError(f"{name} that depend on data")
    return array if array.size else None


def _text(attrs: dict[str, Any], name: str, missing: str) -> str:
    return attrs.get(name, missing.encode()).decode()
