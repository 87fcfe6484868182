"""What Winograd convolution costs.

The model is that of schedules/roofline.py: what a register tile starts per channel against what the core can start, and
what comes from the caches; transforms are as many cycles as they have vector instructions, at the rate of FMAs.
"""

from __future__ import annotations

from pconvgen.schedules.roofline import activation_instructions
from pconvgen.templates.winograd.grid import TileGrid
from pconvgen.templates.winograd.transforms import TAPS
from pconvgen.values.core import Core, Costs, VectorWidth
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

HIDDEN = 0.7
"""Share of reading the weights once more that hides behind the products."""

EXPOSED = 0.5
"""Share of writing and reading scratch memory that takes time where it does not fit the second-level cache."""

STEP = 3
"""Instructions for addresses and the branch of one channel, beside its tile."""


def winograd_cycles(workload: ConvWorkload, schedule: WinogradSchedule, core: Core) -> tuple[float, float, float]:
    """Cycles of a schedule with an output that is stored as it is, vectors and rows that are stored; see Priced."""
    grid, costs, l2_kib = TileGrid(workload, schedule), core.costs, core.l2_kib
    widths = core.widths(workload.precision.arithmetic)
    cycles = workload.in_channels * _input(grid, widths) + workload.out_channels * _output(grid, widths, costs)
    element = workload.precision.arithmetic.bytes
    scratch = element * grid.points**2 * (grid.inputs + grid.products)
    if scratch > l2_kib * 1024:
        cycles += EXPOSED * scratch / costs.l3_bytes
    weights = element * grid.points**2 * grid.groups * schedule.filters * workload.in_channels
    products = grid.points**2 * grid.groups * _products(grid, core)
    near = weights + scratch <= l2_kib * 1024
    blocks = workload.batch * grid.blocks
    # They come from memory once and are fetched ahead.
    first = max(products, weights / costs.memory_bytes)
    again = weights / (costs.l2_bytes if near else costs.l3_bytes)
    further = products + again - HIDDEN * min(products, again)
    vectors = sum(schedule.tile**2 / _rate(widths, piece.lanes) for piece in grid.pieces())
    rows = blocks * workload.out_channels * schedule.rows
    return blocks * cycles + first + (blocks - 1) * further + costs.call, rows * vectors, rows * schedule.tile


def _products(grid: TileGrid, core: Core) -> float:
    """Cycles of a group of filters at one point for the tiles of a block."""
    isa, costs, s = core.isa, core.costs, grid.schedule
    widths = core.widths(grid.workload.precision.arithmetic)
    width = next(w for w in widths if w.lanes == s.lanes)
    channels = grid.workload.in_channels
    # Weights are loaded one by one, for which the narrowest width stands, but for FMAs by element.
    scalars = max(w.loads for w in widths)
    panels = -(-grid.vectors // s.vectors)
    compute = 0.0
    for panel in range(panels):
        vectors = grid.vectors // panels + (panel < grid.vectors % panels)
        fmas = s.filters * vectors
        weights = -(-s.filters // s.lanes) if isa.lane_indexed_fma else s.filters
        # A weight that is used once is a memory operand where the ISA has those.
        separate = 0 if isa.memory_operands and vectors == 1 else weights
        issue = (fmas + (vectors + separate) / isa.paired + STEP) / core.issue
        loads = vectors / width.loads + weights / scalars
        step = max(fmas / width.fma, loads, costs.fma_latency, issue)
        step += costs.in_order * issue
        compute += channels * step + costs.body + fmas * costs.store
    # The tiles of a point are read again for every group of filters.
    tiles = grid.workload.precision.arithmetic.bytes * channels * grid.vectors * s.lanes
    move = tiles / costs.l2_bytes if tiles > core.l1_kib * 1024 / 2 else 0.0
    return compute + move - costs.overlap * min(compute, move)


def _input(grid: TileGrid, widths: tuple[VectorWidth, ...]) -> float:
    """Cycles to transform one channel of a block."""
    m, points = grid.schedule.tile, grid.points
    arithmetic = _arithmetic(m)
    columns = -(-(grid.workload.out_width + TAPS - 1) // grid.schedule.lanes)
    along_columns = columns * (2 * points + arithmetic) / _rate(widths, grid.schedule.lanes)
    shuffles = m * (m.bit_length() - 1) + TAPS - 1
    per_vector = points * (m + 1 + shuffles + arithmetic + points)
    return grid.schedule.rows * (along_columns + sum(per_vector / _rate(widths, p.lanes) for p in grid.pieces()))


def _output(grid: TileGrid, widths: tuple[VectorWidth, ...], costs: Costs) -> float:
    """Cycles to transform one filter of a block, which is stored as it is."""
    m, points = grid.schedule.tile, grid.points
    shuffles = m * m * (m.bit_length() - 1)
    store = costs.store + activation_instructions(grid.workload)
    per_vector = points**2 + (points + m) * _arithmetic(m) + shuffles + m * m * store
    return grid.schedule.rows * sum(per_vector / _rate(widths, piece.lanes) for piece in grid.pieces())


def _arithmetic(m: int) -> int:
    """Instructions of a transform of one vector of tiles in one direction."""
    pairs = m // 2
    return 2 * pairs * (pairs + 1)


def _rate(widths: tuple[VectorWidth, ...], lanes: int) -> float:
    """Vectors of so many lanes that a core computes per cycle."""
    return min((w for w in widths if w.lanes >= lanes), key=lambda w: w.lanes).fma
