"""Tensors in planes, with NumPy: what the templates read and write."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.layout.store import tensor_shape
from pconvgen.values.planes import PlaneLayout


def _planes(layout: PlaneLayout) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each plane of the first channel, [rows, pitch]: offsets of its elements, and (y, x) of the tensor at each,
    which may lie outside."""
    rows, columns = np.arange(layout.rows)[:, None], np.arange(layout.pitch)[None]
    for index, (p, q) in enumerate(layout.phases):
        offsets = layout.lead + index * layout.plane + rows * layout.row_stride + columns
        y, x = rows * layout.stride[0] + p - layout.before[0], columns * layout.stride[1] + q - layout.before[1]
        yield offsets, *np.broadcast_arrays(y, x)


def in_planes(layout: PlaneLayout, data: NDArray[np.floating], slots: NDArray[np.int64]) -> NDArray[np.floating]:
    """[batch, channels, height, width] in the layout, its channel c in place slots[c]; NaN where nothing belongs."""
    flat = nothing(str(data.dtype), len(data), layout.size)
    for offsets, y, x in _planes(layout):
        inside = (y >= 0) & (y < layout.height) & (x >= 0) & (x < layout.width)
        for c, slot in enumerate(slots):
            at = offsets + slot * layout.channel
            flat[:, at] = 0
            flat[:, at[inside]] = data[:, c, y[inside], x[inside]]
    if not layout.interleaved:  # the zeros that the last row shares with a next one
        for index, (_, q) in enumerate(layout.phases):
            for slot in slots:
                end = layout.lead + slot * layout.channel + index * layout.plane + layout.rows * layout.pitch
                flat[:, end : end + min(layout.gap, layout.real_columns(q)[0])] = 0
    return flat.reshape(tensor_shape(layout, len(data)))


def visible(layout: PlaneLayout, data: NDArray[np.floating]) -> NDArray[np.floating]:
    """The tensor with zeros for the elements that no plane shows."""
    return from_planes(layout, in_planes(layout, data, np.arange(data.shape[1])), np.arange(data.shape[1]))[0]


def from_planes(
    layout: PlaneLayout, flat: NDArray[np.floating], slots: NDArray[np.int64]
) -> tuple[NDArray[np.floating], str | None]:
    """The inverse of `_in_planes`, and what is wrong: padding that is not zero, planes that differ."""
    data = elements(layout, flat, slots)
    wanted, found = in_planes(layout, data, slots).reshape(len(flat), -1), flat.reshape(len(flat), -1)
    for c, slot in enumerate(slots):
        for offsets, _, _ in _planes(layout):
            at = offsets + slot * layout.channel
            if not np.array_equal(found[:, at], wanted[:, at], equal_nan=True):
                return data, f"padding of channel {c} is not zero, or its planes differ"
    return data, None


def elements(layout: PlaneLayout, flat: NDArray[np.floating], slots: NDArray[np.int64]) -> NDArray[np.floating]:
    """[batch, channels, height, width] of the channels in places `slots`, zeros for what no plane shows."""
    flat = flat.reshape(len(flat), -1)
    data = np.zeros((len(flat), len(slots), layout.height, layout.width), flat.dtype)
    for offsets, y, x in _planes(layout):
        inside = (y >= 0) & (y < layout.height) & (x >= 0) & (x < layout.width)
        for c, slot in enumerate(slots):
            data[:, c, y[inside], x[inside]] = flat[:, offsets[inside] + slot * layout.channel]
    return data


def nothing(dtype: str, *shape: int) -> NDArray[np.floating]:
    """NaN, so that nothing unwritten passes."""
    return np.full(shape, np.nan, dtype)
