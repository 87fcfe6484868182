"""Cutting runs of pixels into tiles: every pixel is computed, nothing outside of the run is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")

from pconvgen.templates.tiles import TileRun, cut, pieces

LENGTHS = st.integers(1, 400)
LANES = st.sampled_from([1, 2, 4, 8, 16])
VECTORS = st.integers(1, 32)


def vector_starts(runs: tuple[TileRun, ...]) -> list[int]:
    """First pixel of every vector, in the order in which the kernel computes them."""
    return [run.first + t * run.step + start for run in runs for t in range(run.count) for start in run.starts]


def covered(starts: list[int], lanes: int) -> set[int]:
    return {start + lane for start in starts for lane in range(lanes)}


def sizes(runs: tuple[TileRun, ...]) -> list[int]:
    """Vectors of every tile."""
    return [len(run.starts) for run in runs for _ in range(run.count)]


@given(LENGTHS, LANES, VECTORS)
def test_tiles_cover_the_run_and_end_with_it_when_clamped(length: int, lanes: int, vectors: int) -> None:
    if lanes > length:
        return
    assert covered(vector_starts(cut(length, lanes, vectors, clamp=True)), lanes) == set(range(length))


@given(LENGTHS, LANES, VECTORS)
def test_tiles_without_clamp_run_over_by_less_than_a_vector(length: int, lanes: int, vectors: int) -> None:
    starts = vector_starts(cut(length, lanes, vectors, clamp=False))
    assert starts == list(range(0, length, lanes)), "whole vectors, one after the other"


@given(LENGTHS, LANES, VECTORS, st.booleans())
def test_tiles_are_as_few_and_as_even_as_possible(length: int, lanes: int, vectors: int, clamp: bool) -> None:
    found = sizes(cut(length, min(lanes, length), vectors, clamp=clamp))
    assert sum(found) == -(-length // min(lanes, length)), "no vector twice"
    assert max(found) <= vectors
    assert max(found) - min(found) <= 1
    assert len(found) == -(-sum(found) // vectors)


@given(LENGTHS, LANES, VECTORS, st.booleans())
def test_runs_follow_each_other(length: int, lanes: int, vectors: int, clamp: bool) -> None:
    """The kernel sizes its scratch tile by where runs end, and steps through each with one distance."""
    runs = cut(length, min(lanes, length), vectors, clamp=clamp)
    ends = [run.first + run.count * run.step for run in runs]
    assert [run.first for run in runs] == [0, *ends[:-1]]
    assert max(vector_starts(runs)) + min(lanes, length) <= ends[-1]
    assert len(runs) <= 3, "each run is code of its own"


@given(LENGTHS, LANES)
def test_pieces_cover_exactly(length: int, lanes: int) -> None:
    width, starts = pieces(length, lanes)
    assert covered(list(starts), width) == set(range(length))
    assert width <= lanes
    assert width == lanes or 2 * width > length, "no narrower than it must be"
    assert len(starts) == -(-length // width)
