"""Schedules of Winograd convolution: which are legal on an instruction set, and the cycles that they need.

The model is that of cost.py: what a register tile starts per channel against what the core can start, and what comes
from the caches; transforms are as many cycles as they have vector instructions, at the rate of FMAs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pconvgen.schedules.cost import (
    BODY,
    CALL,
    FMA_LATENCY,
    IN_ORDER,
    L1_KIB,
    L2_BYTES,
    L3_BYTES,
    MEMORY_BYTES,
    OVERLAP,
    STORE,
    KernelCycles,
    activation_instructions,
)
from pconvgen.templates.planes import Places, PlaneLayout
from pconvgen.templates.tiles import even_parts
from pconvgen.templates.winograd_grid import TileGrid
from pconvgen.templates.winograd_transforms import PAIRS, TAPS
from pconvgen.values.isa import Isa
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

FILTERS = (4, 8, 16)
"""Filters of a register tile."""

BLOCK = 256
"""Tiles of a block, about, at most: enough for weights to be read from far away for nothing."""

HIDDEN = 0.7
"""Share of reading the weights once more that hides behind the products."""

EXPOSED = 0.5
"""Share of writing and reading scratch memory that takes time where it does not fit the second-level cache."""

STEP = 3
"""Instructions for addresses and the branch of one channel, beside its tile."""


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
            for lanes in (w.lanes for w in isa.widths):
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
    weights = -(-filters // lanes) if isa.by_element else 1
    return filters * vectors + vectors + weights <= isa.registers


@lru_cache(maxsize=4096)  # each layer is asked for with many targets
def priced_winograd(workload: ConvWorkload, isa: Isa, l2_kib: int) -> tuple[tuple[WinogradSchedule, KernelCycles], ...]:
    """All legal schedules of a layer with what they take; none where the template does not apply."""
    return tuple(
        (schedule, winograd_cycles(workload, schedule, isa, l2_kib)) for schedule in winograd_schedules(workload, isa)
    )


def best_winograd(
    workload: ConvWorkload, isa: Isa, l2_kib: int, target: PlaneLayout
) -> tuple[float, WinogradSchedule] | None:
    """(cycles, schedule) of the fastest legal schedule; None where the template does not apply."""
    found = ((cycles.to(target), schedule) for schedule, cycles in priced_winograd(workload, isa, l2_kib))
    return min(found, key=lambda pair: pair[0], default=None)


def can_place(places: Places) -> bool:
    """Whether the template reads and writes these layouts: padding of all columns lies around the input's rows."""
    return places.source.main is not None and not places.source.own_columns


def winograd_cycles(workload: ConvWorkload, schedule: WinogradSchedule, isa: Isa, l2_kib: int) -> KernelCycles:
    """Cycles of the `winograd` template."""
    grid = TileGrid(workload, schedule)
    cycles = workload.in_channels * _input(grid, isa) + workload.out_channels * _output(grid, isa)
    scratch = 4 * grid.points**2 * (grid.inputs + grid.products)
    if scratch > l2_kib * 1024:
        cycles += EXPOSED * scratch / L3_BYTES
    weights = 4 * grid.points**2 * grid.groups * schedule.filters * workload.in_channels
    products = grid.points**2 * grid.groups * _products(grid, isa)
    near = weights + scratch <= l2_kib * 1024
    blocks = workload.batch * grid.blocks
    # They come from memory once and are fetched ahead.
    first = max(products, weights / MEMORY_BYTES)
    again = weights / (L2_BYTES if near else L3_BYTES)
    further = products + again - HIDDEN * min(products, again)
    vectors = sum(schedule.tile**2 / _rate(isa, piece.lanes) for piece in grid.pieces())
    rows = blocks * workload.out_channels * schedule.rows
    return KernelCycles(
        fixed=blocks * cycles + first + (blocks - 1) * further + CALL,
        stores=rows * vectors,
        zeros=rows * schedule.tile,
    )


def _products(grid: TileGrid, isa: Isa) -> float:
    """Cycles of a group of filters at one point for the tiles of a block."""
    s, width = grid.schedule, next(w for w in isa.widths if w.lanes == grid.schedule.lanes)
    channels = grid.workload.in_channels
    # Weights are loaded one by one, for which the narrowest width stands, but for FMAs by element.
    scalars = max(w.loads for w in isa.widths)
    panels = -(-grid.vectors // s.vectors)
    compute = 0.0
    for panel in range(panels):
        vectors = grid.vectors // panels + (panel < grid.vectors % panels)
        fmas = s.filters * vectors
        weights = -(-s.filters // s.lanes) if isa.by_element else s.filters
        # A weight that is used once is a memory operand where the ISA has those.
        separate = 0 if isa.memory_operands and vectors == 1 else weights
        issue = (fmas + (vectors + separate) / isa.paired + STEP) / isa.issue
        loads = vectors / width.loads + weights / scalars
        step = max(fmas / width.fma, loads, FMA_LATENCY, issue)
        step += IN_ORDER * issue if isa.by_element else 0.0
        compute += channels * step + BODY + fmas * STORE
    # The tiles of a point are read again for every group of filters.
    tiles = 4 * channels * grid.vectors * s.lanes
    move = tiles / L2_BYTES if tiles > L1_KIB * 1024 / 2 else 0.0
    return compute + move - OVERLAP * min(compute, move)


def _input(grid: TileGrid, isa: Isa) -> float:
    """Cycles to transform one channel of a block."""
    m, points = grid.schedule.tile, grid.points
    arithmetic = _arithmetic(m)
    columns = -(-(grid.workload.out_width + TAPS - 1) // grid.schedule.lanes)
    along_columns = columns * (2 * points + arithmetic) / _rate(isa, grid.schedule.lanes)
    shuffles = m * (m.bit_length() - 1) + TAPS - 1
    per_vector = points * (m + 1 + shuffles + arithmetic + points)
    return grid.schedule.rows * (along_columns + sum(per_vector / _rate(isa, p.lanes) for p in grid.pieces()))


def _output(grid: TileGrid, isa: Isa) -> float:
    """Cycles to transform one filter of a block, which is stored as it is."""
    m, points = grid.schedule.tile, grid.points
    shuffles = m * m * (m.bit_length() - 1)
    store = STORE + activation_instructions(grid.workload)
    per_vector = points**2 + (points + m) * _arithmetic(m) + shuffles + m * m * store
    return grid.schedule.rows * sum(per_vector / _rate(isa, piece.lanes) for piece in grid.pieces())


def _arithmetic(m: int) -> int:
    """Instructions of a transform of one vector of tiles in one direction."""
    pairs = m // 2
    return 2 * pairs * (pairs + 1)


def _rate(isa: Isa, lanes: int) -> float:
    """Vectors of so many lanes that a core computes per cycle."""
    return min((w for w in isa.widths if w.lanes >= lanes), key=lambda w: w.lanes).fma
