"""The layout of activations: what a kernel reads through its offsets is what a convolution multiplies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.values.planes import PlaneLayout, plain_layout, plane_layout
from pconvgen.values.workload import ConvWorkload
from tests.planes import in_planes

SETTINGS = settings(max_examples=100)


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
def layouts(draw: st.DrawFn) -> tuple[ConvWorkload, PlaneLayout, int]:
    """A convolution, a layout as it may ask for, and the lanes of its vectors."""
    workload, lanes = draw(workloads()), draw(st.sampled_from([1, 2, 4, 8, 16]))
    own_columns = draw(st.booleans())
    layout = plane_layout(
        workload,
        align=draw(st.sampled_from([1, lanes])),
        aligned_rows=draw(st.booleans()),
        own_columns=own_columns,
        interleaved=not own_columns and draw(st.booleans()),
        slack=lanes,
    )
    return workload, layout, lanes


def image_of(w: ConvWorkload) -> NDArray[np.float32]:
    """Distinct numbers, none of them zero."""
    return np.arange(1, 1 + w.in_channels * w.height * w.width, dtype=np.float32).reshape(-1, w.height, w.width)


def positions(w: ConvWorkload) -> NDArray[np.int32]:
    """(channel, row, column) of every weight of one filter."""
    return np.stack(np.indices((w.in_channels, *w.kernel)), axis=-1).reshape(-1, 3).astype(np.int32)


def output_offsets(w: ConvWorkload, layout: PlaneLayout) -> NDArray[np.int64]:
    """What the kernel adds to an entry's offset for every output pixel."""
    down, across = layout.step(w)
    return np.arange(w.out_height)[:, None] * (down * layout.row_stride) + np.arange(w.out_width) * across


def assert_gathers(w: ConvWorkload, layout: PlaneLayout, slots: NDArray[np.int64]) -> None:
    """The offsets of all positions lead to what the convolution multiplies, its padding included."""
    image = image_of(w)
    packed = in_planes(layout, image[None], slots).reshape(-1)
    top, left, bottom, right = w.padding
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    for entry, offset in zip(positions(w), layout.entry_offsets(w, positions(w), slots), strict=True):
        channel, row, column = (int(i) for i in entry)
        rows = np.arange(w.out_height) * w.stride[0] + row * w.dilation[0]
        columns = np.arange(w.out_width) * w.stride[1] + column * w.dilation[1]
        read = packed[offset + output_offsets(w, layout)]
        np.testing.assert_array_equal(read, padded[channel][np.ix_(rows, columns)], err_msg=f"{layout!r} {entry}")


@SETTINGS
@given(layouts(), st.integers(0, 2))
def test_offsets_gather_what_the_convolution_reads(drawn: tuple[ConvWorkload, PlaneLayout, int], more: int) -> None:
    w, layout, _ = drawn
    assert layout.readable(w), layout
    slots = np.random.default_rng(more).permutation(w.in_channels + more)[: w.in_channels]
    assert_gathers(w, replace(layout, channels=w.in_channels + more), slots)


@SETTINGS
@given(layouts(), workloads())
def test_whoever_finds_a_layout_readable_reads_it_right(
    drawn: tuple[ConvWorkload, PlaneLayout, int], other: ConvWorkload
) -> None:
    w, layout, _ = drawn
    reader = replace(other, in_channels=w.in_channels, height=w.height, width=w.width)
    assume(reader.out_height > 0 and reader.out_width > 0)
    for stride in {reader.stride, (1, 1), layout.stride}:
        same = replace(reader, stride=stride)
        if layout.readable(same):
            assert_gathers(same, layout, np.arange(w.in_channels))


def test_a_column_that_was_left_out_is_no_padding() -> None:
    """A plane for taps 0 and 1 with stride 2 has no element 1, whose place is the padding before the next row."""
    layout = PlaneLayout(1, 1, 2, (1, 2), (0, 1), rows=1, pitch=1, phases=((0, 0), (0, 1)), gap=1, slack=1)
    maker = ConvWorkload(1, 1, 1, 2, 1, (1, 2), stride=(1, 2), padding=(0, 1, 0, 0))
    assert layout.readable(maker)
    assert not layout.readable(replace(maker, padding=(0, 0, 0, 0)))


@SETTINGS
@given(layouts())
def test_whole_vectors_stay_inside(drawn: tuple[ConvWorkload, PlaneLayout, int]) -> None:
    """The last vector of a tile runs at most lanes - 1 pixels past the last output."""
    w, layout, lanes = drawn
    offsets = layout.entry_offsets(w, positions(w), np.arange(w.in_channels))
    assert offsets.max() + output_offsets(w, layout).max() + lanes - 1 < layout.size
    assert offsets.min() >= 0


@SETTINGS
@given(layouts())
def test_no_element_is_stored_twice_or_outside(drawn: tuple[ConvWorkload, PlaneLayout, int]) -> None:
    w, layout, _ = drawn
    image = image_of(w)
    packed = in_planes(layout, image[None], np.arange(w.in_channels)).reshape(-1)
    stored = packed[np.nan_to_num(packed) != 0]
    shown = sum(
        max(0, last - first) * max(0, right - left)
        for p, q in layout.phases
        for (first, last), (left, right) in [(layout.real_rows(p), layout.real_columns(q))]
    )
    assert len(stored) == w.in_channels * shown


@SETTINGS
@given(layouts())
def test_the_main_plane_is_the_tensor(drawn: tuple[ConvWorkload, PlaneLayout, int]) -> None:
    w, layout, _ = drawn
    assume(layout.main is not None and layout.writable)
    packed = in_planes(layout, image_of(w)[None], np.arange(w.in_channels)).reshape(-1)
    c, y, x = np.indices((w.in_channels, w.height, w.width))
    np.testing.assert_array_equal(packed[layout.main + c * layout.channel + y * layout.row_stride + x], image_of(w))


@SETTINGS
@given(layouts())
def test_offsets_of_entries_and_taps_add_up(drawn: tuple[ConvWorkload, PlaneLayout, int]) -> None:
    """A body's tap may carry the channel, the row, the column or all of them; the entry carries the others."""
    w, layout, _ = drawn
    entries, slots, origin = positions(w), np.arange(w.in_channels), layout.tap_offset(w, 0, 0)
    whole = layout.entry_offsets(w, entries, slots)
    for carried in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)):
        if carried in ((0, 1, 0), (0, 0, 1)) and w.stride != (1, 1):
            continue
        entry = layout.entry_offsets(w, entries * (1 - np.array(carried, np.int32)), slots)
        taps = [
            c * layout.channel + layout.tap_offset(w, r, s) - origin
            for c, r, s in (entries * np.array(carried)).tolist()
        ]
        np.testing.assert_array_equal(entry + taps, whole, err_msg=str(carried))


@SETTINGS
@given(layouts())
def test_the_centre_column_is_aligned(drawn: tuple[ConvWorkload, PlaneLayout, int]) -> None:
    w, layout, lanes = drawn
    if layout.pitch % lanes or layout.plane % lanes or w.stride[1] > 1 or layout.own_columns or layout.align % lanes:
        return
    centre = positions(w)[positions(w)[:, 2] == w.kernel[1] // 2]
    assert not (layout.entry_offsets(w, centre, np.arange(w.in_channels)) % lanes).any()


def test_plain_is_nchw() -> None:
    w = ConvWorkload(1, 3, 7, 9, 1, (3, 2), dilation=(2, 3))
    layout = plain_layout(3, 7, 9)
    assert layout.readable(w)
    assert (layout.plain, layout.seamless, layout.main) == (True, True, 0)
    assert layout.size == 3 * 7 * 9
    assert not replace(layout, slack=8).plain


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
def test_rows_share_their_zeros(width: int, kernel: int, padding: int, stride: int, expected: int) -> None:
    w = ConvWorkload(1, 1, 5, width, 1, (1, kernel), (1, stride), (0, padding, 0, padding))
    layout = plane_layout(w, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=0)
    assert layout.pitch == expected


def test_images_of_more_elements_than_an_offset_counts_are_refused() -> None:
    """The offsets are int32; silently wrapped, they would read outside of the tensor."""
    w = ConvWorkload(1, 64, 8000, 8000, 1, (3, 3), padding=(1, 1, 1, 1))
    layout = plane_layout(w, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=8)
    with pytest.raises(UsageError, match="too large"):
        layout.entry_offsets(w, np.array([[63, 0, 0]], np.int32), np.arange(64))
