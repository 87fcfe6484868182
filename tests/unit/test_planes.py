"""The layout of activations: what a kernel reads through its offsets is what a convolution multiplies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.templates.planes import PlaneLayout, min_pitch, plane_layout
from pconvgen.workload import ConvWorkload

SETTINGS = settings(max_examples=300, deadline=None)


@st.composite
def workloads(draw: st.DrawFn) -> ConvWorkload:
    """Convolutions of one image; padding may exceed the kernel and an output may be one pixel."""
    sizes = st.integers(1, 3)
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilation = (draw(sizes), draw(sizes))
    padding = tuple(draw(st.integers(0, 6)) for _ in range(4))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (
        max(1, span - padding[axis] - padding[axis + 2]) + draw(st.integers(0, 9)) for axis, span in enumerate(spans)
    )
    return ConvWorkload(
        batch=1,
        in_channels=draw(sizes),
        height=height,
        width=width,
        out_channels=1,
        kernel=kernel,
        stride=(draw(sizes), draw(sizes)),
        padding=padding,
        dilation=dilation,
    )


@st.composite
def layouts(draw: st.DrawFn) -> tuple[PlaneLayout, int]:
    """A layout as the pixel template asks for it, and its vectors' lanes."""
    workload, lanes = draw(workloads()), draw(st.sampled_from([1, 2, 4, 8, 16]))
    own_columns, align = draw(st.booleans()), draw(st.sampled_from([1, lanes]))
    pitch = (workload.out_width if own_columns else min_pitch(workload)) + draw(st.sampled_from([0, 0, 1, 5]))
    return plane_layout(
        workload,
        block=draw(st.integers(1, workload.out_height)),
        pitch=-(-pitch // align) * align,
        align=align,
        own_columns=own_columns,
        slack=lanes if align == 1 else 2 * lanes,
    ), lanes


def pack(layout: PlaneLayout, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """`image` [channels, height, width] in `layout`: the reference of PackKernel, zeros wherever no element lies."""
    w = layout.workload
    packed = np.zeros(layout.size, np.float32)
    for first_row, base in blocks(layout):
        for c, channel in enumerate(image):
            for index, (p, q) in enumerate(layout.phases):
                first = layout.lead + base + c * layout.channel + index * layout.plane
                c0, c1 = layout.real_columns(q)
                for r in range(layout.rows):
                    y, x = (first_row + r) * w.stride[0] + p - w.padding[0], c0 * w.stride[1] + q - w.padding[1]
                    if 0 <= y < w.height and c1 > c0:
                        assert x >= 0
                        at = first + r * layout.pitch + c0
                        packed[at : at + c1 - c0] = channel[y, x :: w.stride[1]][: c1 - c0]
    return packed


def blocks(layout: PlaneLayout) -> list[tuple[int, int]]:
    """(first output row, offset from the image's start) of every block."""
    rows = [min(b * layout.block, layout.workload.out_height - layout.block) for b in range(layout.blocks)]
    return [(row, layout.block_start(b, row)) for b, row in enumerate(rows)]


def image_of(w: ConvWorkload) -> NDArray[np.float32]:
    """Distinct numbers, none of them zero."""
    return np.arange(1, 1 + w.in_channels * w.height * w.width, dtype=np.float32).reshape(-1, w.height, w.width)


def positions(w: ConvWorkload) -> NDArray[np.int32]:
    """(channel, row, column) of every weight of one filter."""
    return np.stack(np.indices((w.in_channels, *w.kernel)), axis=-1).reshape(-1, 3).astype(np.int32)


def output_offsets(layout: PlaneLayout) -> NDArray[np.int64]:
    """What the kernel adds to an entry's offset for every output pixel."""
    w = layout.workload
    offsets = np.full((w.out_height, w.out_width), -1)
    for row, base in blocks(layout):
        inside = np.arange(layout.block)[:, None] * layout.pitch + np.arange(w.out_width)
        offsets[row : row + layout.block] = base + inside
    return offsets


@SETTINGS
@given(layouts())
def test_offsets_gather_what_the_convolution_reads(drawn: tuple[PlaneLayout, int]) -> None:
    layout, _ = drawn
    w = layout.workload
    image = image_of(w)
    packed = pack(layout, image)
    top, left, bottom, right = w.padding
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    for entry, offset in zip(positions(w), layout.entry_offsets(positions(w)), strict=True):
        channel, row, column = (int(i) for i in entry)
        rows = np.arange(w.out_height) * w.stride[0] + row * w.dilation[0]
        columns = np.arange(w.out_width) * w.stride[1] + column * w.dilation[1]
        read = packed[offset + output_offsets(layout)]
        np.testing.assert_array_equal(read, padded[channel][np.ix_(rows, columns)], err_msg=f"{layout} {entry}")


@SETTINGS
@given(layouts())
def test_whole_vectors_stay_inside(drawn: tuple[PlaneLayout, int]) -> None:
    """The last vector of a tile runs at most lanes - 1 pixels past the last output."""
    layout, lanes = drawn
    if layout.identity:
        return  # no slack: such kernels clamp
    last = layout.entry_offsets(positions(layout.workload)).max() + output_offsets(layout).max()
    assert last + lanes - 1 < layout.size


@SETTINGS
@given(layouts())
def test_planes_hold_their_rows(drawn: tuple[PlaneLayout, int]) -> None:
    """Threads fill planes apart, and rows end where the next begin."""
    layout, _ = drawn
    assert layout.rows * layout.pitch <= layout.plane
    assert all(c0 >= 0 and c1 <= layout.pitch for c0, c1 in (layout.real_columns(q) for _, q in layout.phases))
    assert layout.lead + layout.blocks * layout.block_size <= layout.size


@SETTINGS
@given(layouts())
def test_offsets_of_entries_and_taps_add_up(drawn: tuple[PlaneLayout, int]) -> None:
    """A body's tap may carry the channel, the row, the column or all of them; the entry carries the others."""
    layout, _ = drawn
    entries = positions(layout.workload)
    whole = layout.entry_offsets(entries)
    for carried in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)):
        entry = layout.entry_offsets(entries * (1 - np.array(carried, np.int32)))
        taps = [c * layout.channel + layout.tap_offset(r, s) for c, r, s in (entries * np.array(carried)).tolist()]
        np.testing.assert_array_equal(entry + taps, whole, err_msg=str(carried))


@SETTINGS
@given(layouts())
def test_the_centre_column_is_aligned(drawn: tuple[PlaneLayout, int]) -> None:
    layout, lanes = drawn
    w = layout.workload
    if layout.pitch % lanes or layout.plane % lanes or w.stride[1] > 1 or not layout.lead:
        return
    centre = positions(w)[positions(w)[:, 2] == w.kernel[1] // 2]
    assert not (layout.entry_offsets(centre) % lanes).any()


def test_identity_is_nchw() -> None:
    w = ConvWorkload(1, 3, 7, 9, 1, (3, 2), dilation=(2, 3))
    layout = plane_layout(w, block=2, pitch=min_pitch(w), align=1, own_columns=False, slack=8)
    assert layout.identity
    assert layout.size == 3 * 7 * 9
    np.testing.assert_array_equal(pack(layout, image_of(w)), image_of(w).reshape(-1))


@pytest.mark.parametrize(
    ("width", "kernel", "padding", "stride", "expected"),
    [
        (4, 3, 1, 1, 5),  # one column of zeros serves both sides
        (8, 5, 2, 1, 10),
        (8, 1, 0, 1, 8),
        (8, 3, 0, 1, 8),  # rows without padding are as they are in NCHW
        (8, 3, 1, 2, 5),  # four outputs; odd columns reach back by one
        (8, 1, 0, 2, 4),
        (1, 3, 1, 1, 2),
        (5, 3, 2, 1, 7),  # padding on both sides makes the output wider; rows need not be wider than it
    ],
)
def test_min_pitch(width: int, kernel: int, padding: int, stride: int, expected: int) -> None:
    w = ConvWorkload(1, 1, 5, width, 1, (1, kernel), (1, stride), (0, padding, 0, padding))
    assert min_pitch(w) == expected


def test_images_of_more_elements_than_an_offset_counts_are_refused() -> None:
    """The offsets are int32; silently wrapped, they would read outside of the tensor."""
    w = ConvWorkload(1, 64, 8000, 8000, 1, (3, 3), padding=(1, 1, 1, 1))
    layout = plane_layout(w, block=w.out_height, pitch=min_pitch(w), align=1, own_columns=False, slack=8)
    with pytest.raises(UsageError, match="too large"):
        layout.entry_offsets(np.array([[63, 0, 0]], np.int32))
