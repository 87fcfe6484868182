"""Padded, pitched planes: the layout in which direct convolution reads its input.

Every input channel is stored as one plane per *phase* (sh, sw) of the stride: phase (p, q) holds the padded
input's elements [y * sh + p][x * sw + q]. A convolution of any stride then reads all its taps with stride 1,
and a tap is one address offset. Rows are `pitch` elements apart; where the padding allows it, the zeros on the
right of a row are the zeros on the left of the next one. Or every *column* of the kernel has planes of its own,
shifted by it: more to write and to keep in the cache, but rows need no padding, so that vectors waste no lanes on it:

    3x3, padding 1, W = 4, pitch 5        0 0 0 0 0        own columns,     0 0 0 0     0 0 0 0     0 0 0 0
                                          0 a b c d        pitch 4          0 a b c     a b c d     b c d 0
                                          0 e f g h                         0 e f g     e f g h     f g h 0
                                          0 ...                             ...         ...         ...

Planes hold the rows that one *block* of output rows reads. The planes of all channels of a block lie together, so that
what a kernel reads at a time covers few pages; rows that two blocks read are stored twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.workload import ConvWorkload, Epilogue


@dataclass(frozen=True)
class PlaneLayout:
    """Where the elements of a workload's input lie, in float32 elements.

    Attributes
    ----------
    workload: a convolution that reads it; its filters, groups and epilogue say nothing.
    block: output rows of a block; the last block overlaps the one before it when rows do not divide.
    pitch: distance of rows.
    lead: elements before the first plane, so that the kernel's centre column is aligned.
    rows: rows of a plane.
    phases: (p, q) of the planes of a channel: that of an element's position modulo the stride, or, with own columns,
        q is the offset of a kernel column. Only those that some tap reads are stored.
    plane: distance of planes; a channel has one plane per phase.
    size: elements of one image, including the slack that whole vectors may read behind the last plane.
    """

    workload: ConvWorkload
    block: int
    pitch: int
    lead: int
    rows: int
    phases: tuple[tuple[int, int], ...]
    plane: int
    size: int

    @property
    def channel(self) -> int:
        """Distance of channels."""
        return self.plane * len(self.phases)

    @property
    def blocks(self) -> int:
        """Row blocks of an image."""
        return -(-self.workload.out_height // self.block)

    @property
    def block_size(self) -> int:
        """Distance of blocks."""
        return self.workload.in_channels * self.channel

    @property
    def identity(self) -> bool:
        """Whether NCHW itself is this layout, so that nothing has to be packed."""
        return _is_nchw(self.workload, self.phases, self.pitch, self.lead)

    def block_start(self, block: Any, row: Any) -> Any:
        """Offset from the image's start of the block that begins with output row `row`."""
        return row * self.pitch if self.identity else block * self.block_size

    def tap_offset(self, row: int, column: int) -> int:
        """Offset of kernel position (row, column) from the first element of its channel."""
        (sh, sw), (dh, dw) = self.workload.stride, self.workload.dilation
        p, y, q = row * dh % sh, row * dh // sh, column * dw
        if (p, q) in self.phases:
            return self.phases.index((p, q)) * self.plane + y * self.pitch
        return self.phases.index((p, q % sw)) * self.plane + y * self.pitch + q // sw

    def entry_offsets(self, entries: NDArray[np.int32]) -> NDArray[np.int32]:
        """Offsets (int32 [entries]) of (channel, row, column) entries (int32 [entries, 3]) from the block's start."""
        if self.block_size + self.lead > np.iinfo(np.int32).max:
            raise UsageError(
                "an image is too large for the offsets of a kernel",
                found=f"{self.block_size} padded elements",
                expected="at most 2147483647",
                remedy="cut the image into tiles",
            )
        kh, kw = self.workload.kernel
        table = np.array([[self.tap_offset(r, c) for c in range(kw)] for r in range(kh)], np.int64)
        channel, row, column = entries.T
        return (self.lead + channel.astype(np.int64) * self.channel + table[row, column]).astype(np.int32)

    def real_columns(self, q: int) -> tuple[int, int]:
        """Columns [first, last) of a plane of phase column q that hold input rather than padding."""
        first, last = _real(self.workload.width, self.workload.padding[1], self.workload.stride[1], q)
        return min(first, self.pitch), min(last, self.pitch)


def _real(extent: int, before: int, stride: int, phase: int) -> tuple[int, int]:
    return max(0, ceil((before - phase) / stride)), max(0, ceil((before + extent - phase) / stride))


def _is_nchw(workload: ConvWorkload, phases: tuple[tuple[int, int], ...], pitch: int, lead: int) -> bool:
    plain = workload.stride == (1, 1) and not any(workload.padding)
    return plain and len(phases) == 1 and pitch == workload.width and lead == 0


@lru_cache(maxsize=1024)
def used_phases(workload: ConvWorkload, *, own_columns: bool) -> tuple[tuple[int, int], ...]:
    """The phases that the kernel's positions read, sorted."""
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.stride, workload.dilation
    columns = {c * dw if own_columns else c * dw % sw for c in range(kw)}
    return tuple(sorted((p, q) for p in {r * dh % sh for r in range(kh)} for q in columns))


@lru_cache(maxsize=1024)
def min_pitch(workload: ConvWorkload) -> int:
    """The smallest pitch at which rows that columns share only share zeros."""
    (_, kw), (_, sw), (_, dw) = workload.kernel, workload.stride, workload.dilation
    columns = workload.out_width + (kw - 1) * dw // sw
    pitch = workload.out_width
    for _, q in used_phases(workload, own_columns=False):
        first, last = _real(workload.width, workload.padding[1], sw, q)
        # Columns at and behind `pitch` of a row are the first columns of the next: both must be padding.
        pitch = max(pitch, min(last, columns), columns - first)
    return pitch


@lru_cache(maxsize=1024)  # choosing a schedule asks for the same layouts over and over
def plane_layout(
    workload: ConvWorkload, *, block: int, pitch: int, align: int, own_columns: bool, slack: int
) -> PlaneLayout:
    """The layout of `workload`'s input.

    Parameters
    ----------
    block: output rows of a block.
    pitch: distance of rows, at least `min_pitch(workload)`, with own columns at least the output's width.
    align: lanes that every plane and, unless columns have their own, the centre column are aligned to; 1 for none.
    own_columns: whether every column of the kernel has planes of its own.
    slack: elements that vectors may read behind the last output position of the last plane.
    """
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.stride, workload.dilation
    # Without what the input does not depend on: layers that read a tensor in the same way share it, and its code.
    geometry = replace(workload, out_channels=1, groups=1, epilogue=Epilogue())
    phases = used_phases(workload, own_columns=own_columns)
    lead = 0 if own_columns else -((kw // 2) * dw // sw) % align
    if _is_nchw(workload, phases, pitch, lead):
        height, plane = workload.height, workload.height * workload.width
        size = workload.in_channels * plane
        return PlaneLayout(geometry, workload.out_height, pitch, 0, height, phases, plane, size)
    rows = block + (kh - 1) * dh // sh
    behind = 0
    if not own_columns:
        # Behind the last row come the zeros that it shares with a next one.
        first = max(_real(workload.width, workload.padding[1], sw, q)[0] for _, q in phases)
        behind = max(0, workload.out_width + (kw - 1) * dw // sw - pitch, first)
    plane = -(-(rows * pitch + behind) // align) * align
    size = lead + -(-workload.out_height // block) * workload.in_channels * len(phases) * plane + slack
    return PlaneLayout(geometry, block, pitch, lead, rows, phases, plane, size)
