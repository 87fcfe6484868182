"""Cutting the outputs of a row block into register tiles of whole vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pconvgen.tvm_compat.tir import Expr, T, const_int64


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

    @cached_property
    def height(self) -> int:
        """Rows of one tile."""
        return max(vector.row for vector in self.vectors) + 1

    @cached_property
    def row_lanes(self) -> int:
        """Lanes of the vectors of a tile's first row."""
        return sum(vector.lanes for vector in self.vectors if vector.row == 0)

    @cached_property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """(lanes, vectors of a tile that have so many)."""
        return tuple(Counter(vector.lanes for vector in self.vectors).items())


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
    down = _Cover(1, rows).runs(height)
    across = tuple(_cover(width, lanes, narrow, clamp=clamp).runs(vectors // height))
    return tuple(
        TileRun(
            y, below, row_step, x, beside, column_step, tuple(Vector(row, *at) for row, _, _ in strip for at in chunk)
        )
        for y, below, row_step, strip in down
        for x, beside, column_step, chunk in across
    )


def even_parts(total: int, most: int) -> list[int]:
    """Sizes of at most `most` that cut `total` into parts of one size, but for the last one; ascending."""
    return sorted({-(-total // -(-total // size)) for size in range(1, min(total, most) + 1)})


_Piece = tuple[int, int, int]
"""(start, lanes, valid lanes)."""


@dataclass(frozen=True)
class _Cover:
    """Vectors side by side, of which there may be very many.

    Attributes
    ----------
    lanes: of each vector.
    whole: number of the vectors, one behind the other from 0.
    last: what covers the rest, None when there is none.
    """

    lanes: int
    whole: int
    last: _Piece | None = None

    def runs(self, most: int) -> Iterator[tuple[int, int, int, tuple[_Piece, ...]]]:
        """The vectors in parts of at most `most`, as few and as even as possible: (start, parts, distance, relative
        part).

        Equal parts side by side are one run; one with the last vector is not, as that may begin anywhere.
        """
        total = self.whole + (self.last is not None)
        parts = -(-total // most)
        small, larger = divmod(total, parts)
        begin = 0
        for size, count in ((small + 1, larger), (small, parts - larger)):
            ends = self.last is not None and size == small
            if alike := count - ends:
                part = tuple((n * self.lanes, self.lanes, self.lanes) for n in range(size))
                yield begin * self.lanes, alike, size * self.lanes if alike > 1 else 0, part
                begin += alike * size
            if ends and self.last is not None:
                start = begin * self.lanes if size > 1 else self.last[0]
                part = tuple((n * self.lanes, self.lanes, self.lanes) for n in range(size - 1))
                at, lanes, valid = self.last
                yield start, 1, 0, (*part, (at - start, lanes, valid))


def _cover(length: int, lanes: int, narrow: int, *, clamp: bool) -> _Cover:
    """Vectors that cover `length` outputs."""
    while clamp and lanes > length:
        lanes //= 2
    whole, rest = divmod(length, lanes)
    if not rest:
        return _Cover(lanes, whole)
    last = lanes
    while last > narrow and last // 2 >= rest:
        last //= 2
    return _Cover(lanes, whole, (length - last, last, last) if clamp else (length - rest, last, rest))


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


def for_each_piece(length: int, lanes: int, emit: Callable[[Expr, int], None]) -> None:
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
