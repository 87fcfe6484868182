"""Cutting the outputs of a row block into register tiles of whole vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pconvgen.tvm_compat import T, const_int64


@dataclass(frozen=True)
class Vector:
    """Outputs that are computed in one register.

    Attributes
    ----------
    row, column: of its first lane, relative to the tile.
    lanes: of the register.
    valid: lanes that are outputs; the others run past the end of a row and are not stored.
    """

    row: int
    column: int
    lanes: int
    valid: int


@dataclass(frozen=True)
class TileRun:
    """Equal tiles, `rows` below each other and `columns` beside each other.

    Attributes
    ----------
    first_row, rows, row_step: row of the first tile, number of tiles, their distance.
    first_column, columns, column_step: the same for columns.
    vectors: of one tile, relative to it.
    """

    first_row: int
    rows: int
    row_step: int
    first_column: int
    columns: int
    column_step: int
    vectors: tuple[Vector, ...]


@lru_cache(maxsize=4096)  # choosing a schedule asks for the same tiles over and over
def cut(
    rows: int, width: int, *, lanes: int, narrow: int, vectors: int, height: int, clamp: bool
) -> tuple[TileRun, ...]:
    """Tiles of at most `height` rows and `vectors` vectors that cover rows x width outputs as evenly as possible.

    Parameters
    ----------
    lanes, narrow: of a vector; what is left of a row is computed in a vector of down to `narrow` lanes.
    clamp: whether the last vector of a row is moved back so that it ends with the row (it recomputes some outputs)
        rather than running past its end.
    """
    height = min(height, vectors, rows)
    down = _runs([(row, 1, 1) for row in range(rows)], height)
    across = tuple(_runs(_cover(width, lanes, narrow, clamp=clamp), vectors // height))
    return tuple(
        TileRun(*place_down, *place_across, tuple(Vector(row, *vector) for row, _, _ in strip for vector in chunk))
        for *place_down, strip in down
        for *place_across, chunk in across
    )


_Piece = tuple[int, int, int]
"""(start, lanes, valid lanes)."""


def _cover(length: int, lanes: int, narrow: int, *, clamp: bool) -> list[_Piece]:
    """Vectors that cover `length` outputs."""
    while clamp and lanes > length:
        lanes //= 2
    cover = [(start, lanes, lanes) for start in range(0, length - lanes + 1, lanes)]
    rest = length % lanes
    if rest:
        last = lanes
        while last > narrow and last // 2 >= rest:
            last //= 2
        cover.append((length - last, last, last) if clamp else (length - rest, last, rest))
    return cover


def _runs(cover: list[_Piece], most: int) -> Iterator[tuple[int, int, int, tuple[_Piece, ...]]]:
    """`cover` in parts of at most `most`, as few and as even as possible: (start, parts, distance, relative part).

    Equal parts side by side are one run; one that overlaps the part before it is not, as it may begin anywhere.
    """
    parts = -(-len(cover) // most)
    small, larger = divmod(len(cover), parts)
    ends = [i * small + min(i, larger) for i in range(parts + 1)]
    run: tuple[int, int, int, tuple[_Piece, ...]] | None = None
    for begin, end in pairwise(ends):
        start = cover[begin][0]
        part = tuple((at - start, lanes, valid) for at, lanes, valid in cover[begin:end])
        distance = sum(part[-1][:2])
        if run is not None and run[3] == part and start == run[0] + run[1] * distance:
            run = (run[0], run[1] + 1, distance, part)
            continue
        if run is not None:
            yield run
        run = (start, 1, 0, part)
    if run is not None:
        yield run


UNROLLED_PIECES = 8
"""Vectors of one row that are unrolled; longer rows get a loop."""


def pieces(length: int, lanes: int) -> tuple[int, tuple[int, ...]]:
    """Vectors that cover exactly `length` pixels: (lanes, starts).

    Lanes shrink to what fits; the last vector may overlap the one before it.
    """
    while lanes > length:
        lanes //= 2
    starts = list(range(0, length - lanes + 1, lanes))
    if length % lanes:
        starts.append(length - lanes)
    return lanes, tuple(starts)


def for_each_piece(length: int, lanes: int, emit: Callable[[Any, int], None]) -> None:
    """Calls `emit(first pixel, lanes)` for vectors that cover exactly `length` pixels; many of them become a loop."""
    lanes, starts = pieces(length, lanes)
    if len(starts) <= UNROLLED_PIECES:
        for x in starts:
            emit(const_int64(x), lanes)
        return
    with T.serial(0, length // lanes) as i:
        emit(T.Bind(T.Cast("int64", i) * lanes), lanes)
    if length % lanes:
        emit(const_int64(length - lanes), lanes)
