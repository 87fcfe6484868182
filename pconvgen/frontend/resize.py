"""Resizing where TVM's resize2d reads other places than the model: it knows sizes only, the model gives a factor.

9 rows resized by 1.5 are 13 rows. The model reads every 1/1.5 rows, resize2d every 9/13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from pconvgen.tvm_compat import constant, shape_of

Array = NDArray[Any]
Tap = tuple[Array, Array]
"""Which element each result reads, and its weight."""


def resample(
    data: Any, positions: Sequence[Array], method: str, emit: Callable[[Any], Any], cubic: float = -0.75
) -> Any:
    """`data` with its last axes read at `positions`: one array for each of them, in elements from its beginning.

    `method` is nearest_neighbor (rounds down), linear or cubic with the coefficient `cubic`. What lies outside has the
    value of the border.
    """
    rank = len(shape_of(data) or ())
    for axis, places in enumerate(positions, rank - len(positions)):
        size = (shape_of(data) or ())[axis]
        parts = []
        for indices, weights in _TAPS[method](places.astype(np.float64), size, cubic):
            inside = constant(np.clip(indices, 0, size - 1).astype(np.int64))
            part = emit(relax.op.take(data, inside, axis=axis, mode="clip"))
            if method != "nearest_neighbor":
                shape = [-1 if other == axis else 1 for other in range(rank)]
                part = emit(relax.op.multiply(part, constant(weights.astype(np.float32).reshape(shape))))
            parts.append(part)
        data = parts[0]
        for part in parts[1:]:
            data = emit(relax.op.add(data, part))
    return data


def _nearest(places: Array, _size: int, _cubic: float) -> list[Tap]:
    return [(np.floor(places), np.ones(len(places)))]


def _linear(places: Array, size: int, _cubic: float) -> list[Tap]:
    places = np.clip(places, 0, size - 1)
    low = np.floor(places)
    return [(low, 1 - (places - low)), (low + 1, places - low)]


def _cubic(places: Array, _size: int, a: float) -> list[Tap]:
    low = np.floor(places)
    taps = []
    for offset in (-1, 0, 1, 2):
        x = np.abs(places - (low + offset))
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        taps.append((low + offset, np.where(x <= 1, near, far)))
    return taps


_TAPS: dict[str, Callable[[Array, int, float], list[Tap]]] = {
    "nearest_neighbor": _nearest,
    "linear": _linear,
    "cubic": _cubic,
}
