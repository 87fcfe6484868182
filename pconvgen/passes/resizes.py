"""Resizing: resize2d becomes calls of the resize template.

before: y = resize2d(x, (2 * h, 2 * w), method="linear", coordinate_transformation_mode="half_pixel")
after:  y = call_tir(resize, (x, row_index, row_weight, column_weight))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules import ISAS
from pconvgen.targets.target import Target
from pconvgen.templates.resize import ResizeKernel
from pconvgen.tvm_compat import (
    Emit,
    KernelCalls,
    constant,
    dtype_of,
    is_op,
    module_pass,
    rewrite_main,
    shape_of,
)

Places = NDArray[np.float32]
Taps = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Elements to read, and their weights, both [terms, outputs]; indices outside mean the border."""


@module_pass
class LowerResizes:
    """Relax pass that replaces resize2d of NCHW float32 tensors of a known size in "main" by generated kernels.

    Parameters
    ----------
    target: what code is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = ISAS[target.isa].widths[0].lanes

    def transform_module(self, module: Any, _context: Any) -> Any:
        """A new module; other methods, coordinates and layouts stay for TVM's own legalisation."""
        kernels = KernelCalls()

        def rule(_var: Any, value: Any, _emit: Emit) -> Any:
            result = _lowered(value, self.lanes, kernels)
            return value if result is None else result

        return kernels.add_to(rewrite_main(module, rule))


def _lowered(value: Any, lanes: int, kernels: KernelCalls) -> Any:
    """The expression in its place; None for what has no template."""
    if not is_op(value, "relax.image.resize2d") or value.attrs.layout != "NCHW" or dtype_of(value) != "float32":
        return None
    before, after = shape_of(value.args[0]), shape_of(value)
    if before is None or after is None or not math.prod(after) or dtype_of(value.args[0]) != "float32":
        return None
    taps = [_taps(value.attrs, before[axis], after[axis]) for axis in (2, 3)]
    if taps[0] is None or taps[1] is None:
        return None
    (rows, row_weight), (columns, column_weight) = taps[0], taps[1]
    picks = tuple(tuple(map(int, each)) for each in columns)
    kernel = ResizeKernel(before[:2], before[2:], after[2:], picks, lanes)
    if not kernel.feasible:
        return None
    arguments = [constant(np.clip(rows, 0, before[2] - 1).astype(np.int32))]
    if len(columns) > 1:
        arguments += [constant(row_weight), constant(column_weight)]
    return kernels.call(kernel, [value.args[0], *arguments], after)


def _taps(attrs: Any, before: int, after: int) -> Taps | None:
    """What an axis reads."""
    places = _places(str(attrs.coordinate_transformation_mode), before, after)
    method = str(attrs.method)
    if places is None or method not in _METHODS or int(attrs.cubic_exclude):
        return None
    if method == "nearest_neighbor":
        asymmetric = str(attrs.coordinate_transformation_mode) == "asymmetric"
        return _nearest(places, str(attrs.rounding_method), exact=asymmetric and after % before == 0)
    return _METHODS[method](places, float(attrs.cubic_alpha))


def _places(mode: str, before: int, after: int) -> Places | None:
    """Where the outputs of an axis are in the input, in float32 as TVM's code has it."""
    grid = np.arange(after, dtype=np.float32)
    half, scale = np.float32(0.5), np.float32(before) / np.float32(after)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and after > 1):
        return (grid + half) * scale - half
    if mode == "pytorch_half_pixel":
        return np.zeros(1, np.float32)
    if mode == "asymmetric":
        return grid * scale
    if mode == "align_corners" and after > 1:
        return grid * (np.float32(before - 1) / np.float32(after - 1))
    return None


def _nearest(places: Places, rounding: str, exact: bool) -> Taps | None:
    # TVM rounds down a little less, so that floats below a whole number count as the number.
    epsilon = np.float32(0 if exact else 1e-5)
    rounded: dict[str, Callable[[], Places]] = {
        "round": lambda: np.round(places),
        "round_prefer_floor": lambda: np.ceil(places - np.float32(0.5)),
        "round_prefer_ceil": lambda: np.floor(places + np.float32(0.5)),
        "floor": lambda: np.floor(places + epsilon),
        "ceil": lambda: np.ceil(places - epsilon),
    }
    if rounding not in rounded:
        return None
    return rounded[rounding]().astype(np.int64)[None], np.ones((1, len(places)), np.float32)


def _linear(places: Places, _alpha: float) -> Taps:
    low = np.floor(places)
    share = places - low
    return np.stack([low, low + 1]).astype(np.int64), np.stack([1 - share, share])


def _cubic(places: Places, a: float) -> Taps:
    low = np.floor(places)
    t = (places - low).astype(np.float64)
    weights = [
        a * (t**3 - 2 * t**2 + t),
        (a + 2) * t**3 - (3 + a) * t**2 + 1,
        -(a + 2) * t**3 + (3 + 2 * a) * t**2 - a * t,
        -a * t**3 + a * t**2,
    ]
    return np.stack([low - 1, low, low + 1, low + 2]).astype(np.int64), np.stack(weights).astype(np.float32)


_METHODS: dict[str, Callable[[Places, float], Taps | None]] = {
    "nearest_neighbor": lambda places, _: None,
    "linear": _linear,
    "cubic": _cubic,
}
