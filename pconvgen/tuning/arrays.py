"""Tensors in layouts of planes, with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.layout.store import tensor_shape
from pconvgen.values.planes import PlaneLayout


def in_planes(layout: PlaneLayout, data: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[Any]:
    """[batch, channels, height, width] in a layout, channel c in place slots[c]; zero where nothing belongs."""
    flat = np.zeros((len(data), layout.size), data.dtype)
    for offsets, y, x in _planes(layout):
        for channel, slot in enumerate(slots):
            flat[:, offsets + slot * layout.channel] = data[:, channel, y, x]
    return flat.reshape(tensor_shape(layout, len(data)))


def elements(layout: PlaneLayout, flat: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[Any]:
    """The inverse of `in_planes`, of the channels in places `slots`; zeros for what no plane shows."""
    flat = flat.reshape(len(flat), -1)
    data = np.zeros((len(flat), len(slots), layout.height, layout.width), flat.dtype)
    for offsets, y, x in _planes(layout):
        for channel, slot in enumerate(slots):
            data[:, channel, y, x] = flat[:, offsets + slot * layout.channel]
    return data


def _planes(layout: PlaneLayout) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each plane of the first channel: offsets of the elements that are no padding, and their rows and columns."""
    (sh, sw), (top, left) = layout.stride, layout.before
    rows, columns = np.arange(layout.rows)[:, None], np.arange(layout.pitch)[None]
    for index, (p, q) in enumerate(layout.phases):
        y, x = np.broadcast_arrays(rows * sh + p - top, columns * sw + q - left)
        inside = (y >= 0) & (y < layout.height) & (x >= 0) & (x < layout.width)
        offsets = layout.lead + index * layout.plane + rows * layout.row_stride + columns
        yield offsets[inside], y[inside], x[inside]
