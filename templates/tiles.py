"""Cutting a run of pixels into register tiles of whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pconvgen.tvm_compat import T, const_int64


@dataclass(frozen=True)
class TileRun:
    """`count` equal tiles of `len(starts)` vectors each.

    Attributes
    ----------
    first: pixel where the first tile begins.
    count: number of tiles.
    step: distance of tiles in pixels.
    starts: first pixel of each vector relative to its tile.
    """

    first: int
    count: int
    step: int
    starts: tuple[int, ...]


def cut(length: int, lanes: int, vectors: int, *, clamp: bool) -> tuple[TileRun, ...]:
    """Tiles of at most `vectors` vectors that cover `length` pixels as evenly as possible.

    With `clamp`, the last vector is moved back so that it ends with the last pixel (it recomputes some); without it,
    it runs past the end. `clamp` needs length >= lanes.
    """
    total = -(-length // lanes)
    tiles = -(-total // vectors)
    small, larger = divmod(total, tiles)
    runs = []
    first = 0
    for count, size in ((larger, small + 1), (tiles - larger, small)):
        if count:
            runs.append(TileRun(first, count, size * lanes, tuple(range(0, size * lanes, lanes))))
            first += count * size * lanes
    if clamp and length % lanes:
        runs = _clamp(runs, length - lanes)
    return tuple(runs)


def _clamp(runs: list[TileRun], last_start: int) -> list[TileRun]:
    """Moves the very last vector to `last_start`; its tile leaves its run, unless it is alone there."""
    run = runs.pop()
    if run.count > 1:
        runs.append(TileRun(run.first, run.count - 1, run.step, run.starts))
    first = run.first + (run.count - 1) * run.step
    return [*runs, TileRun(first, 1, run.step, (*run.starts[:-1], last_start - first))]


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
