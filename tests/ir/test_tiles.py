"""Cutting runs of pixels into tiles: every pixel is computed, nothing outside of the run is touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pconvgen.templates.layout.tiles import TileRun, Vector, cut, even_parts, pieces

LENGTHS = st.integers(1, 200)
ROWS = st.integers(1, 20)
LANES = st.sampled_from([1, 2, 4, 8, 16])
VECTORS = st.integers(1, 32)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int, int, bool, tuple[TileRun, ...]]:
    """(rows, width, lanes, vectors, height, clamp, tiles)."""
    rows, width, lanes, vectors = draw(ROWS), draw(LENGTHS), draw(LANES), draw(VECTORS)
    narrow, height, clamp = draw(LANES), draw(st.integers(1, 20)), draw(st.booleans())
    tiles = cut(rows, width, lanes=lanes, narrow=narrow, vectors=vectors, height=height, clamp=clamp)
    return rows, width, lanes, vectors, height, clamp, tiles


def placed(runs: tuple[TileRun, ...]) -> list[list[tuple[int, int, Vector]]]:
    """(row, column, vector) of the vectors of every tile."""
    return [
        [
            (
                run.first_row + y * run.row_step + vector.row,
                run.first_column + x * run.column_step + vector.column,
                vector,
            )
            for vector in run.vectors
        ]
        for run in runs
        for y in range(run.rows)
        for x in range(run.columns)
    ]


@given(cuts())
def test_tiles_cover_every_output_and_nothing_else(drawn: tuple) -> None:
    rows, width, *_, clamp, tiles = drawn
    outputs = [(row, column + i) for tile in placed(tiles) for row, column, v in tile for i in range(v.valid)]
    assert set(outputs) == {(row, column) for row in range(rows) for column in range(width)}
    assert clamp or len(outputs) == rows * width, "without clamp nothing is computed twice"


@given(cuts())
def test_vectors_run_past_a_row_only_without_clamp(drawn: tuple) -> None:
    _, width, lanes, _, _, clamp, tiles = drawn
    for tile in placed(tiles):
        for _, column, vector in tile:
            assert 0 < vector.valid <= vector.lanes <= lanes
            assert column + vector.lanes <= width if clamp else vector.valid == min(vector.lanes, width - column)


@given(cuts())
def test_tiles_are_within_their_limits_and_even(drawn: tuple) -> None:
    rows, _, _, vectors, height, _, tiles = drawn
    found = placed(tiles)
    heights = [len({row for row, _, _ in tile}) for tile in found]
    assert max(len(tile) for tile in found) <= vectors
    assert max(heights) <= min(height, rows)
    assert max(heights) - min(heights) <= 1
    across = [len(tile) // rows_of for tile, rows_of in zip(found, heights, strict=True)]
    assert max(across) - min(across) <= 1


@given(cuts())
def test_equal_tiles_share_their_code(drawn: tuple) -> None:
    """Each run is code of its own: two heights times three widths, of which the last may end differently."""
    *_, tiles = drawn
    assert len(tiles) <= 2 * 3


def test_a_row_is_cut_without_going_along_it() -> None:
    """Nobody could wait for, or hold, as many vectors as these."""
    long = 16 * 10**15 + 3
    for clamp in (False, True):
        tiles = cut(1, long, lanes=16, narrow=4, vectors=7, height=1, clamp=clamp)
        covered = sum(run.rows * run.columns * sum(vector.valid for vector in run.vectors) for run in tiles)
        assert covered == long + (clamp and 1), "the last vector of 4 lanes computes one output again"


@given(st.integers(1, 500), st.integers(1, 40))
def test_even_parts_are_all_sizes_that_cut_evenly(total: int, most: int) -> None:
    sizes = {-(-total // parts) for parts in range(1, total + 1)}
    assert even_parts(total, most) == sorted(size for size in sizes if size <= most)


@given(cuts())
def test_loops_go_over_whole_tiles(drawn: tuple) -> None:
    """Stores into phases of a stride need columns that are multiples of it, unless they are numbers."""
    *_, tiles = drawn
    for run in tiles:
        if run.columns > 1:
            assert run.column_step == max(vector.column + vector.lanes for vector in run.vectors)


@given(LENGTHS, LANES)
def test_pieces_cover_exactly(length: int, lanes: int) -> None:
    width, starts = pieces(length, lanes)
    assert {start + lane for start in starts for lane in range(width)} == set(range(length))
    assert width <= lanes
    assert width == lanes or 2 * width > length, "no narrower than it must be"
    assert len(starts) == -(-length // width)
