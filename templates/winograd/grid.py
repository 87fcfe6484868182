"""Where the tiles of a Winograd convolution lie: in the input, in the output, and in the scratch memory between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pconvgen.templates.layout.tiles import UNROLLED_PIECES
from pconvgen.templates.winograd.transforms import TAPS
from pconvgen.tvm_compat.tir import Expr, T
from pconvgen.values.planes import CACHE_LINE
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

NARROW = 4
"""Least lanes of a vector in the transforms."""


@dataclass(frozen=True)
class Piece:
    """A vector of tiles of one row of tiles.

    Attributes
    ----------
    first, lanes: its tiles; those beyond the row are computed and not stored.
    columns: its outputs in a row of the image.
    """

    first: int
    lanes: int
    columns: int


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image, in blocks of some rows of tiles.

    Transformed inputs are kept as [(m + 2)^2 points][channels][stride] and their products with the weights as
    [(m + 2)^2 points][filters][stride], both for the tiles of a block, row by row without gaps.
    """

    workload: ConvWorkload
    schedule: WinogradSchedule

    @property
    def points(self) -> int:
        """Points in each direction, m + 2: as many as a tile has inputs."""
        return self.schedule.tile + TAPS - 1

    @property
    def height(self) -> int:
        """Rows of tiles; those at the end may reach beyond the outputs."""
        return -(-self.workload.out_height // self.schedule.tile)

    @property
    def width(self) -> int:
        """Tiles of a row."""
        return -(-self.workload.out_width // self.schedule.tile)

    @property
    def blocks(self) -> int:
        """Blocks of an image; the last one overlaps the one before it when rows do not divide."""
        return -(-self.height // self.schedule.rows)

    @property
    def tiles(self) -> int:
        """Tiles of a block."""
        return self.schedule.rows * self.width

    @property
    def vectors(self) -> int:
        """Vectors of a block in the products."""
        return -(-self.tiles // self.schedule.lanes)

    @property
    def groups(self) -> int:
        """Groups of filters that a register tile computes."""
        return -(-self.workload.out_channels // self.schedule.filters)

    def pieces(self) -> tuple[Piece, ...]:
        """The vectors of one row of tiles in the transforms: wide ones, and the rest as narrow as it allows."""
        return _pieces(self.workload.out_width, self.schedule.tile, self.schedule.lanes)

    def runs(self, across: int = 1) -> tuple[tuple[Piece, int], ...]:
        """The pieces with how many of each follow one by one: of a wide row the whole ones, but for a few.

        Those begin at multiples of `across` columns.
        """
        pieces, s = self.pieces(), self.schedule
        whole = sum((piece.lanes, piece.columns) == (s.lanes, s.tile * s.lanes) for piece in pieces)
        if whole <= UNROLLED_PIECES or s.tile * s.lanes % across:
            return tuple((piece, 1) for piece in pieces)
        return (pieces[0], whole), *((piece, 1) for piece in pieces[whole:])

    @property
    def stride(self) -> int:
        """Distance of channels and of filters in scratch memory: room for what vectors compute beyond the last tile."""
        last = self.pieces()[-1]
        reach = max(self.tiles + last.first + last.lanes - self.width, self.vectors * self.schedule.lanes)
        return -(-reach // CACHE_LINE) * CACHE_LINE

    @property
    def inputs(self) -> int:
        """Distance of points in the transformed input."""
        return _odd_lines(self.workload.in_channels * self.stride)

    @property
    def products(self) -> int:
        """Distance of points in the products."""
        return _odd_lines(self.groups * self.schedule.filters * self.stride)


@lru_cache(maxsize=1024)  # every price of a schedule asks for them, and there are many of a wide image
def _pieces(out_width: int, tile: int, widest: int) -> tuple[Piece, ...]:
    width, first, found = -(-out_width // tile), 0, []
    while first < width:
        lanes = widest
        while lanes > NARROW and lanes // 2 >= width - first:
            lanes //= 2
        found.append(Piece(first, lanes, min(tile * lanes, out_width - tile * first)))
        first += lanes
    return tuple(found)


def _odd_lines(size: int) -> int:
    """`size`, of whole lines, made an odd number of them, so that points do not fall on the same set of a cache."""
    return size if size // CACHE_LINE % 2 else size + CACHE_LINE


def for_each_run(runs: tuple[tuple[Piece, int], ...], emit: Callable[[Piece, Expr], None]) -> None:
    """Calls `emit(piece, tiles by which it is moved to the right)`, of many pieces in a loop."""
    for piece, count in runs:
        if count == 1:
            emit(piece, T.int64(0))
        else:
            with T.serial(0, count) as x:
                emit(piece, T.Bind(T.Cast("int64", x) * piece.lanes))
