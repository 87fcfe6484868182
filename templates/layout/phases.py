"""Planes of a layout that differ only in where they begin, so that one piece of code writes all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from pconvgen.values.planes import PlaneLayout

UNROLLED_PHASES = 8
"""Planes of a channel that are written by code of their own: those of strides up to 2, with most kernels' own columns.
Numbers in place of variables make that code a little faster, but a stride of 32 would have 1024 pieces of it."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class PhaseBlock:
    """Planes with the same real rows and columns.

    Attributes
    ----------
    rows, columns: the phases (p, q), every one of `rows` with every one of `columns`.
    index: of the first plane among those of a channel.
    row_index: distance of the planes of two phase rows; those of a row follow each other.
    """

    rows: range
    columns: range
    index: int
    row_index: int


def phase_blocks(layout: PlaneLayout) -> tuple[PhaseBlock, ...]:
    """All planes of a channel; each by itself where there are few."""
    if len(layout.phases) <= UNROLLED_PHASES:
        return tuple(PhaseBlock(range(p, p + 1), range(q, q + 1), n, 1) for n, (p, q) in enumerate(layout.phases))
    rows = [(p, [q for _, q in group]) for p, group in groupby(layout.phases, lambda phase: phase[0])]
    blocks, index = [], 0
    for part in _runs(rows, lambda row: row[0], lambda row: (row[1], layout.real_rows(row[0]))):
        down, columns, before = _range([p for p, _ in part]), part[0][1], 0
        for run in _runs(columns, int, layout.real_columns):
            blocks.append(PhaseBlock(down, _range(run), index + before, len(columns)))
            before += len(run)
        index += len(part) * len(columns)
    return tuple(blocks)


def _runs(
    items: Sequence[_Item], number: Callable[[_Item], int], kind: Callable[[_Item], object]
) -> Iterator[list[_Item]]:
    """`items` cut where they are of another kind, or where their numbers are not equally far apart."""
    run: list[_Item] = []
    for item in items:
        apart = len(run) > 1 and number(item) - number(run[-1]) != number(run[1]) - number(run[0])
        if run and (apart or kind(run[0]) != kind(item)):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _range(numbers: Sequence[int]) -> range:
    """Numbers that are equally far apart."""
    first, last = numbers[0], numbers[-1]
    return range(first, last + 1, (last - first) // (len(numbers) - 1) if len(numbers) > 1 else 1)
