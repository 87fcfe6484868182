"""The space of schedules of Winograd convolution."""

from __future__ import annotations

from collections.abc import Iterator

from pconvgen.templates.layout.tiles import even_parts
from pconvgen.templates.winograd.transforms import PAIRS, TAPS
from pconvgen.values.isa import Isa
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

FILTERS = (4, 8, 16)
"""Filters of a register tile."""

BLOCK = 256
"""Tiles of a block, about, at most: enough for weights to be read from far away for nothing."""


def applies(workload: ConvWorkload) -> bool:
    """Whether the template computes such layers."""
    w = workload
    return (w.kernel, w.stride, w.dilation, w.groups) == ((TAPS, TAPS), (1, 1), (1, 1), 1)


def winograd_schedules(workload: ConvWorkload, isa: Isa) -> Iterator[WinogradSchedule]:
    """All legal schedules of a layer; none where the template does not apply."""
    if not applies(workload):
        return
    for m in PAIRS:
        height, width = (-(-size // m) for size in (workload.out_height, workload.out_width))
        for rows in even_parts(height, max(1, BLOCK // width)):
            for lanes in isa.lanes(workload.precision.arithmetic):
                for filters in FILTERS:
                    for vectors in _vectors(-(-rows * width // lanes), filters, lanes, isa):
                        yield WinogradSchedule(m, lanes, vectors, filters, rows)


def _vectors(total: int, filters: int, lanes: int, isa: Isa) -> list[int]:
    """Vectors of a register tile, such that tiles are as even as possible."""
    most = max((n for n in range(1, isa.registers) if _fits(filters, n, lanes, isa)), default=0)
    if not most:
        return []
    fewest = -(-total // most)
    return sorted({-(-total // tiles) for tiles in (fewest, fewest + 1)})


def _fits(filters: int, vectors: int, lanes: int, isa: Isa) -> bool:
    weights = -(-filters // lanes) if isa.lane_indexed_fma else 1
    return filters * vectors + vectors + weights <= isa.registers
