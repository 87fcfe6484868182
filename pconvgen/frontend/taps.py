"""What the elements of a resized axis are: weighted sums of taps, a few elements around a place of the axis before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.passes.resizes import Taps

Coordinates = NDArray[np.float32]
"""Where the elements of an axis lie on the axis before, in elements from its beginning."""
InterpolationKernel = Callable[[NDArray[Any]], NDArray[Any]]
"""The weight of an element for its distance from a place."""


def nearest(indices: NDArray[Any]) -> Taps:
    """One element each."""
    return indices.astype(np.int64)[None], np.ones((1, len(indices)), np.float32)


def identity(size: int) -> Taps:
    """An axis as it is."""
    return nearest(np.arange(size, dtype=np.float64))


def linear(places: Coordinates) -> Taps:
    """The two elements beside each place; outside is the border."""
    low = np.floor(places)
    share = places - low
    return np.stack([low, low + 1]).astype(np.int64), np.stack([1 - share, share]).astype(np.float32)


def cubic(places: Coordinates, a: float, size: int | None = None) -> Taps:
    """The four elements around each place with a cubic of coefficient `a`.

    Outside is the border; where `size` is given, what is outside of it does not count.
    """
    low = np.floor(places.astype(np.float64))
    indices = low + np.arange(-1, 3)[:, None]
    weights = cubic_kernel(a)(indices - places)
    if size is not None:
        weights = _shares(np.where((indices < 0) | (indices >= size), 0, weights))
    return indices.astype(np.int64), weights.astype(np.float32)


def smoothed(places: Coordinates, step: float, kernel: InterpolationKernel, support: int, size: int | None) -> Taps:
    """All elements that the kernel reaches, stretched to `step` elements where that is more than one (antialias).

    Outside is the border; where `size` is given, what is outside of it does not count.
    """
    stretch = max(step, 1.0)
    centres = places.astype(np.float64) + 0.5
    first, last = (np.floor(centres + side * support * stretch + 0.5) for side in (-1, 1))
    indices = first + np.arange(int((last - first).max()))[:, None]
    weights = kernel((indices + 0.5 - centres) / stretch) * (indices < last)
    if size is not None:
        weights *= (indices >= 0) & (indices < size)
    weights = _shares(weights)
    # What has no weight is not read: it may be no number.
    indices = np.where(weights == 0, np.floor(centres), indices)
    used = (weights != 0).any(axis=1)
    return indices[used].astype(np.int64), weights[used].astype(np.float32)


def linear_kernel(x: NDArray[Any]) -> NDArray[Any]:
    """A triangle."""
    return np.maximum(1 - np.abs(x), 0)


def cubic_kernel(a: float) -> InterpolationKernel:
    """Keys' cubic convolution."""

    def kernel(x: NDArray[Any]) -> NDArray[Any]:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel


def _shares(weights: NDArray[Any]) -> NDArray[Any]:
    return weights / weights.sum(axis=0)
