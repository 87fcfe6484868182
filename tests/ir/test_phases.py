"""Planes of many phases are written by loops: neither code nor compile time grows with the stride."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.templates.layout.phases import phase_blocks
from pconvgen.templates.movement.pack import input_pack
from pconvgen.values.planes import PlaneLayout, plane_layout
from pconvgen.values.workload import ConvWorkload
from tests.ir.test_expression_size import nodes


def layout_of(kernel: tuple[int, int], stride: tuple[int, int], **options: Any) -> PlaneLayout:
    options = {"size": 96, "padding": (0, 0), "dilation": (1, 1), "own_columns": False, "interleaved": False, **options}
    size, padding = options.pop("size"), options.pop("padding")
    w = ConvWorkload(
        1, 3, size, size, 1, kernel, stride=stride, padding=(*padding, *padding), dilation=options.pop("dilation")
    )
    return plane_layout(w, align=1, aligned_rows=False, slack=16, **options)


pairs = st.tuples(st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=200)
@given(pairs, pairs, st.tuples(st.integers(0, 9), st.integers(0, 9)), st.booleans(), st.booleans(), st.integers(1, 3))
def test_blocks_hold_every_plane_once(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    own_columns: bool,
    interleaved: bool,
    dilation: int,
) -> None:
    layout = layout_of(
        kernel, stride, size=41, padding=padding, dilation=(dilation, 1), own_columns=own_columns,
        interleaved=interleaved and not own_columns,
    )  # fmt: skip
    found = {}
    for block in phase_blocks(layout):
        for i, p in enumerate(block.rows):
            for j, q in enumerate(block.columns):
                place = block.index + i * block.row_index + j
                assert place not in found
                found[place] = (p, q)
                assert layout.real_rows(p) == layout.real_rows(block.rows.start)
                assert layout.real_columns(q) == layout.real_columns(block.columns.start)
    assert [found[place] for place in range(len(found))] == list(layout.phases)


@pytest.mark.parametrize("padding", [0, 3])
def test_packing_does_not_grow_with_the_stride(padding: int) -> None:
    """An axis has at most three kinds of phases: those that begin in padding, those that end in it, others."""
    small, *larger = (
        tvm.IRModule({"main": pack.build()})
        for k in (7, 13, 27, 53)
        if (pack := input_pack(1, layout_of((k, k), (k, k), size=424, padding=(padding, padding)), 16)) is not None
    )
    assert [nodes(module) <= 3 * nodes(small) for module in larger] == [True] * 3
    for k in range(3, 40):
        assert len(phase_blocks(layout_of((k, k), (k, k), padding=(padding, padding)))) <= 9


def test_few_planes_have_code_of_their_own() -> None:
    """Numbers in place of variables for the strides that most networks have."""
    for options in ({"own_columns": True}, {"own_columns": False}):
        layout = layout_of((3, 3), (2, 2), padding=(1, 1), **options)
        assert len(phase_blocks(layout)) == len(layout.phases)
