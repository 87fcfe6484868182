"""Planes of a layout that differ only in where they begin, so that one piece of code writes all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from pconvgen.templates.planes import PlaneLayout

UNROLLED_PHASES = 8
"""Planes of a channel that are written by code of their own: those of strides up to 2, with most kernels' own columns.
Numbers in place of variables make that code a little faster, but a stride of 32 would have 1024 pieces of it."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Progression:
    """`first`, `first` + `step`, ..., `count` numbers."""

    first: int
    step: int
    count: int


@dataclass(frozen=True)
class PhaseBlock:
    """Planes with the same real rows and columns.

    Attributes
    ----------
    rows, columns: the phases (p, q), every one of `rows` with every one of `columns`.
    index: of the first plane among those of a channel; those of a phase row follow each other.
    row_index: distance of the planes of two phase rows.
    """

    rows: Progression
    columns: Progression
    index: int
    row_index: int


def phase_blocks(layout: PlaneLayout) -> tuple[PhaseBlock, ...]:
    """All planes of a channel; each by itself where there are few."""
    one = len(layout.phases) <= UNROLLED_PHASES
    rows = [(p, [q for _, q in group]) for p, group in groupby(layout.phases, lambda phase: phase[0])]

    def alike_rows(a: tuple[int, list[int]], b: tuple[int, list[int]]) -> bool:
        return not one and a[1] == b[1] and layout.real_rows(a[0]) == layout.real_rows(b[0])

    def alike_columns(a: int, b: int) -> bool:
        return not one and layout.real_columns(a) == layout.real_columns(b)

    blocks = []
    index = 0
    for part in _runs(rows, lambda row: row[0], alike_rows):
        columns, before = part[0][1], 0
        for run in _runs(columns, int, alike_columns):
            down = _progression([p for p, _ in part])
            blocks.append(PhaseBlock(down, _progression(run), index + before, len(columns)))
            before += len(run)
        index += len(part) * len(columns)
    return tuple(blocks)


def _runs(
    items: Sequence[_Item], number: Callable[[_Item], int], alike: Callable[[_Item, _Item], bool]
) -> Iterator[list[_Item]]:
    """`items` cut where they are not alike, or where their numbers are not equally far apart."""
    run: list[_Item] = []
    for item in items:
        apart = len(run) > 1 and number(item) - number(run[-1]) != number(run[1]) - number(run[0])
        if run and (apart or not alike(run[0], item)):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _progression(numbers: Sequence[int]) -> Progression:
    return Progression(numbers[0], numbers[1] - numbers[0] if len(numbers) > 1 else 0, len(numbers))
