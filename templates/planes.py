"""Padded, pitched planes: the layout in which direct convolution reads its input.

Every input channel is stored as one plane per *phase* (sh, sw) of the stride: phase (p, q) holds the padded
input's elements [y * sh + p][x * sw + q]. A convolution of any stride then reads all its taps with stride 1,
and a tap is one address offset. Rows are `pitch` elements apart; where the padding allows it, the zeros on the
right of a row are the zeros on the left of the next one:

    3x3, padding 1, W = 4, pitch 5        0 0 0 0 0
                                          0 a b c d
                                          0 e f g h
                                          0 ...
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

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
    pitch: distance of rows.
    lead: elements before the first plane, so that the kernel's centre column is aligned.
    rows: rows of a plane.
    phases: phases (p, q) that some tap reads; others are not stored.
    plane: distance of planes; a channel has one plane per phase.
    size: elements of one image, including the slack that whole vectors may read behind the last plane.
    """

    workload: ConvWorkload
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
    def identity(self) -> bool:
        """Whether NCHW itself is this layout, so that nothing has to be packed."""
        w = self.workload
        return w.stride == (1, 1) and not any(w.padding) and self.pitch == w.width and self.lead == 0

    def tap_offset(self, row: int, column: int) -> int:
        """Offset of kernel position (row, column) from the first element of its channel."""
        (sh, sw), (dh, dw) = self.workload.stride, self.workload.dilation
        phase = self.phases.index((row * dh % sh, column * dw % sw))
        return phase * self.plane + row * dh // sh * self.pitch + column * dw // sw

    def entry_offsets(self, entries: NDArray[np.int32]) -> NDArray[np.int32]:
        """Offsets (int32 [entries]) of (channel, row, column) entries (int32 [entries, 3]) from the image's start."""
        if self.size > np.iinfo(np.int32).max:
            raise UsageError(
                "an image is too large for the offsets of a kernel",
                found=f"{self.size} padded elements",
                expected="at most 2147483647",
                remedy="cut the image into tiles",
            )
        kh, kw = self.workload.kernel
        table = np.array([[self.tap_offset(r, c) for c in range(kw)] for r in range(kh)], np.int64)
        channel, row, column = entries.T
        return (self.lead + channel.astype(np.int64) * self.channel + table[row, column]).astype(np.int32)

    def real_columns(self, q: int) -> tuple[int, int]:
        """Columns [first, last) of phase column q that hold input rather than padding."""
        first, last = _real(self.workload.width, self.workload.padding[1], self.workload.stride[1], q)
        return min(first, self.pitch), min(last, self.pitch)

    def real_rows(self, p: int) -> tuple[int, int]:
        """Rows [first, last) of phase row p that hold input rather than padding."""
        first, last = _real(self.workload.height, self.workload.padding[0], self.workload.stride[0], p)
        return min(first, self.rows), min(last, self.rows)


def _real(extent: int, before: int, stride: int, phase: int) -> tuple[int, int]:
    return max(0, ceil((before - phase) / stride)), max(0, ceil((before + extent - phase) / stride))


def used_phases(workload: ConvWorkload) -> tuple[tuple[int, int], ...]:
    """Phases of the stride that the kernel's positions read, sorted."""
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.stride, workload.dilation
    return tuple(sorted({(r * dh % sh, c * dw % sw) for r in range(kh) for c in range(kw)}))


def min_pitch(workload: ConvWorkload) -> int:
    """The smallest pitch at which rows only share zeros."""
    (_, kw), (_, sw), (_, dw) = workload.kernel, workload.stride, workload.dilation
    columns = workload.out_width + (kw - 1) * dw // sw
    pitch = workload.out_width
    for _, q in used_phases(workload):
        first, last = _real(workload.width, workload.padding[1], sw, q)
        # Columns at and behind `pitch` of a row are the first columns of the next: both must be padding.
        pitch = max(pitch, min(last, columns), columns - first)
    return pitch


def plane_layout(workload: ConvWorkload, *, pitch: int, align: int, slack: int) -> PlaneLayout:
    """The layout of `workload`'s input.

    Parameters
    ----------
    pitch: distance of rows, at least `min_pitch(workload)`.
    align: lanes that the centre column and every plane are aligned to; 1 for none.
    slack: elements that vectors may read behind the last output position of the last plane.
    """
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.stride, workload.dilation
    phases = used_phases(workload)
    rows = workload.out_height + (kh - 1) * dh // sh
    columns = workload.out_width + (kw - 1) * dw // sw
    # Behind the last row come the zeros that it shares with a next one.
    first = max(_real(workload.width, workload.padding[1], sw, q)[0] for _, q in phases)
    plane = rows * pitch + max(0, columns - pitch, first)
    lead = -((kw // 2) * dw // sw) % align
    plane = -(-plane // align) * align
    if pitch == workload.width and align == 1 and workload.stride == (1, 1) and not any(workload.padding):
        plane = workload.height * workload.width
    size = lead + workload.in_channels * len(phases) * plane + slack
    # Without what the input does not depend on: layers that read a tensor in the same way share it, and its code.
    geometry = replace(workload, out_channels=1, groups=1, epilogue=Epilogue())
    return PlaneLayout(geometry, pitch, lead, rows, phases, plane, size)
