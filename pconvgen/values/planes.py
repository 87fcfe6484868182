"""Padded, pitched planes: the layout of activations between kernels.

Every channel is stored as one plane per *phase* (p, q) of its reader's stride: the plane holds the padded tensor's
elements [y * sh + p][x * sw + q]. A convolution of any stride then reads all its taps with stride 1, and a tap is one
address offset. Rows are `pitch` elements apart; the zeros on the right of a row are the zeros on the left of the next
one. Or every *column* of the reader's kernel has planes of its own, shifted by it: more to write and to keep in the
cache, but rows need no padding, so that vectors waste no lanes on it:

    3x3, padding 1, W = 4, pitch 5        0 0 0 0 0        own columns,     0 0 0 0     0 0 0 0     0 0 0 0
                                          0 a b c d        pitch 4          0 a b c     a b c d     b c d 0
                                          0 e f g h                         0 e f g     e f g h     f g h 0
                                          0 ...                             ...         ...         ...

The planes of a channel lie together, or, *interleaved*, the rows of all channels do, so that what a kernel reads of a
large image at a time covers few pages. Either way the address of an element is affine in channel, row and column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.values.workload import ConvWorkload

SAME_SETS = 256
"""Rows that are a multiple of so many elements (1 KiB) apart compete for the same places of a cache."""
CACHE_LINE = 16
"""float32 elements of a cache line, of 64 bytes on all targets."""


@dataclass(frozen=True)
class PlaneLayout:
    """Where the elements of a tensor of `channels` x `height` x `width` lie, in float32 elements.

    Attributes
    ----------
    channels, height, width: of the tensor.
    stride: (sh, sw) of the phases.
    before: zeros in front: (top, left) of the padded tensor.
    rows: of a plane.
    pitch: distance of a plane's rows, or of the planes of a row if they are interleaved.
    phases: (p, q) of a channel's planes. With own columns q is the offset of a kernel column.
    align: elements that planes are aligned to.
    lead: elements before the first plane.
    gap: elements behind the last row of a plane, which are zero.
    slack: elements behind the last plane, which vectors may read.
    interleaved: whether the rows of all channels lie together.
    """

    channels: int
    height: int
    width: int
    stride: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    rows: int = 0
    pitch: int = 0
    phases: tuple[tuple[int, int], ...] = ((0, 0),)
    align: int = 1
    lead: int = 0
    gap: int = 0
    slack: int = 0
    interleaved: bool = False

    def __str__(self) -> str:
        if self.plain:
            return "NCHW"
        columns = "own columns, " if self.own_columns else ""
        stride = "" if self.stride == (1, 1) else f"phases of {self.stride[0]}x{self.stride[1]}, "
        order = "rows" if self.interleaved else "planes"
        return f"{order} of pitch {self.pitch}, {columns}{stride}{self.channels} channels"

    @cached_property
    def plane(self) -> int:
        """Distance of the planes of a channel."""
        return self.pitch if self.interleaved else -(-(self.rows * self.pitch + self.gap) // self.align) * self.align

    @cached_property
    def channel(self) -> int:
        """Distance of channels."""
        return self.plane * len(self.phases)

    @cached_property
    def row_stride(self) -> int:
        """Distance of the rows of a plane."""
        if not self.interleaved:
            return self.pitch
        stride = self.channels * self.channel
        return stride if stride % SAME_SETS else stride + CACHE_LINE

    @cached_property
    def size(self) -> int:
        """Elements of one image."""
        body = self.rows * self.row_stride if self.interleaved else self.channels * self.channel
        return self.lead + body + self.slack

    @cached_property
    def plain(self) -> bool:
        """Whether this is NCHW without anything else, the layout of other operators."""
        return self == plain_layout(self.channels, self.height, self.width)

    @cached_property
    def own_columns(self) -> bool:
        """Whether kernel columns have planes of their own."""
        return any(q >= self.stride[1] for _, q in self.phases)

    @cached_property
    def index(self) -> dict[tuple[int, int], int]:
        """Which of a channel's planes has a phase."""
        return {phase: number for number, phase in enumerate(self.phases)}

    @cached_property
    def main(self) -> int | None:
        """Offset of element (0, 0, 0) where whole rows lie `row_stride` apart; None where they do not."""
        if self.stride != (1, 1):
            return None
        top, left = self.before
        if (0, left) in self.index:
            return self.lead + self.index[0, left] * self.plane + top * self.row_stride
        return None if self.own_columns else self.lead + top * self.row_stride + left

    @cached_property
    def seamless(self) -> bool:
        """Whether the rows of the tensor follow each other without a gap in the main plane."""
        return self.main is not None and self.row_stride == self.width

    def real_columns(self, q: int) -> tuple[int, int]:
        """Columns [first, last) of a plane of phase column q that hold elements rather than padding."""
        first, last = _real(self.width, self.before[1], self.stride[1], q)
        return min(first, self.pitch), min(last, self.pitch)

    def real_rows(self, p: int) -> tuple[int, int]:
        """Rows [first, last) of a plane of phase row p that hold elements rather than padding."""
        first, last = _real(self.height, self.before[0], self.stride[0], p)
        return min(first, self.rows), min(last, self.rows)

    def step(self, workload: ConvWorkload) -> tuple[int, int]:
        """Rows and columns of a plane between two outputs of a reader."""
        return workload.stride[0] // self.stride[0], workload.stride[1] // self.stride[1]

    def readable(self, workload: ConvWorkload) -> bool:
        """Whether a convolution finds all that it reads, its padding included."""
        (kh, kw), (dh, dw), (down, across) = workload.kernel, workload.dilation, self.step(workload)
        if (down * self.stride[0], across * self.stride[1]) != workload.stride:
            return False
        if self.stride != (1, 1) and (down, across) != (1, 1):
            return False
        if workload.padding[0] > self.before[0] or workload.padding[1] > self.before[1]:
            return False
        for row in {0, kh - 1}:
            y = row * dh - workload.padding[0] + self.before[0]
            if y // self.stride[0] + (workload.out_height - 1) * down >= self.rows:
                return False
        positions = {(p * dh, q * dw) for p in range(kh) for q in range(kw)}
        for dy, dx in positions:
            p = (dy - workload.padding[0] + self.before[0]) % self.stride[0]
            x = dx - workload.padding[1] + self.before[1]
            own = (p, x) in self.index
            q, first = (x, 0) if own else (x % self.stride[1], x // self.stride[1])
            if (p, q) not in self.index or (self.own_columns and not own):
                return False
            # Behind a row lies the padding before the next; not in planes that leave out columns, as nobody read them.
            whole = _real(self.width, self.before[1], self.stride[1], q)[1] <= self.pitch
            apart = self.interleaved or self.own_columns or not whole
            shared = 0 if apart else min(self.real_columns(q)[0], self.gap)
            if first + (workload.out_width - 1) * across >= self.pitch + shared:
                return False
        return True

    @cached_property
    def writable(self) -> bool:
        """Whether a producer can store whole vectors: what lands beside a plane's elements lands on its padding."""
        (sh, sw), (top, left) = self.stride, self.before
        if max(sh, sw) > 2 or {(p, q % sw) for p, q in self.phases} != {(p, q) for p in range(sh) for q in range(sw)}:
            return False
        fits = all(_real(self.height, top, sh, p)[1] <= self.rows for p in range(sh))
        for _, q in self.phases:
            first, last = self.real_columns(q)
            ends = self.pitch + (0 if self.interleaved else min(first, self.gap))
            lowest, behind = -((q - left) // sw), -(-(self.width + left - q) // sw)
            fits &= behind <= ends and lowest >= (0 if self.interleaved else max(last - self.pitch, -self.lead))
        return fits

    def tap_offset(self, workload: ConvWorkload, row: int, column: int) -> int:
        """Offset of a reader's kernel position (row, column) from the start of a channel's planes."""
        y = row * workload.dilation[0] - workload.padding[0] + self.before[0]
        x = column * workload.dilation[1] - workload.padding[1] + self.before[1]
        (p, r), q, c = (y % self.stride[0], y // self.stride[0]), x, 0
        if (p, q) not in self.index:
            q, c = x % self.stride[1], x // self.stride[1]
        return self.index[p, q] * self.plane + r * self.row_stride + c

    def entry_offsets(
        self, workload: ConvWorkload, entries: NDArray[np.int32], slots: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Offsets (int32 [entries]) of a reader's entries (int32 [entries, 3]: channel, row, column).

        `slots` int64 [channels of the reader] are the places of its channels among those of the layout.
        """
        if self.size > np.iinfo(np.int32).max:
            raise UsageError(
                "an image is too large for the offsets of a kernel",
                found=f"{self.size} padded elements",
                expected="at most 2147483647",
                remedy="cut the image into tiles",
            )
        kh, kw = workload.kernel
        table = np.array([[self.tap_offset(workload, r, c) for c in range(kw)] for r in range(kh)], np.int64)
        channel, row, column = entries.T
        offsets: NDArray[np.int64] = self.lead + slots[channel] * self.channel + table[row, column]
        return offsets.astype(np.int32)


@dataclass(frozen=True)
class Places:
    """Where the input and the output of a layer lie.

    Attributes
    ----------
    source, target: layouts of input and output.
    residual: that of the tensor that is added, None when there is none.
    """

    source: PlaneLayout
    target: PlaneLayout
    residual: PlaneLayout | None = None

    @property
    def seamless(self) -> bool:
        """Whether outputs of a row follow those of the one before it, so that tiles may run across rows."""
        target, residual = self.target, self.residual
        rows = target.stride == (1, 1) and target.row_stride == target.width
        return rows and (residual is None or residual.seamless)


def _real(extent: int, before: int, stride: int, phase: int) -> tuple[int, int]:
    return max(0, ceil((before - phase) / stride)), max(0, ceil((before + extent - phase) / stride))


@lru_cache(maxsize=4096)
def plain_layout(channels: int, height: int, width: int) -> PlaneLayout:
    """NCHW as it is."""
    return PlaneLayout(channels, height, width, rows=height, pitch=width)


def used_phases(workload: ConvWorkload, *, own_columns: bool) -> tuple[tuple[int, int], ...]:
    """The phases that the kernel's positions read, sorted."""
    (kh, kw), (sh, sw), (dh, dw) = workload.kernel, workload.stride, workload.dilation
    columns = {c * dw if own_columns else c * dw % sw for c in range(kw)}
    return tuple(sorted((p, q) for p in {r * dh % sh for r in range(kh)} for q in columns))


@lru_cache(maxsize=8192)  # choosing a schedule asks for the same layouts over and over
def plane_layout(
    workload: ConvWorkload,
    *,
    align: int,
    aligned_rows: bool,
    own_columns: bool,
    interleaved: bool,
    slack: int,
) -> PlaneLayout:
    """The layout of `workload`'s input with phases of its stride.

    Parameters
    ----------
    align: elements that planes and, unless columns have their own, the centre column are aligned to; 1 for none.
    aligned_rows: whether rows are aligned to them, too.
    own_columns: whether every column of the kernel has planes of its own.
    interleaved: whether the rows of all channels lie together; not with own columns.
    slack: elements that vectors may read behind the last output position of the last plane.
    """
    w = workload
    (kh, kw), (sh, sw), (dh, dw), (top, left) = w.kernel, w.stride, w.dilation, w.padding[:2]
    phases = used_phases(w, own_columns=own_columns)
    # Rows and columns that nobody reads have a place too: producers store whole tensors.
    reals = [_real(w.width, left, sw, q) for _, q in phases]
    rows = max(w.out_height + (kh - 1) * dh // sh, *(_real(w.height, top, sh, p)[1] for p, _ in phases))
    gap = 0
    if own_columns:
        pitch = max(w.out_width, -(-w.width // sw))
        gap = max(max(first, (q - left) // sw) for (_, q), (first, _) in zip(phases, reals, strict=True))
        lead = -(-gap // align) * align
    else:
        columns = w.out_width + (kw - 1) * dw // sw
        lead = -((kw // 2) * dw // sw) % align
        if interleaved:
            pitch = max(columns, *(last for _, last in reals))
        else:
            pitch = w.out_width
            for first, last in reals:
                # Columns at and behind `pitch` of a row are the first ones of the next: both must be padding.
                pitch = max(pitch, last - first, min(last, columns), columns - first)
            # Behind the last row come the zeros that it shares with a next one.
            gap = max(0, columns - pitch, *(first for first, _ in reals))
    if aligned_rows or interleaved:
        pitch = -(-pitch // align) * align
    return PlaneLayout(
        channels=w.in_channels,
        height=w.height,
        width=w.width,
        stride=w.stride,
        before=(top, left),
        rows=rows,
        pitch=pitch,
        phases=phases,
        align=align,
        lead=lead,
        gap=gap,
        slack=slack,
        interleaved=interleaved,
    )
