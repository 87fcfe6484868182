"""What the `pixels` template costs: cycles of all schedules of a layer at once, see schedules/roofline.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import Array, Numbers, Priced, activation_instructions, weight_bytes, width_of
from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.layout.tiles import TileRun
from pconvgen.templates.pixels.kernel import block_tiles
from pconvgen.templates.pixels.products import ENTRIES
from pconvgen.values.core import Core
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload


def pixel_cycles(
    workload: ConvWorkload,
    shape: TapShape,
    schedules: tuple[PixelSchedule, ...],
    core: Core,
    source: PlaneLayout,
) -> Priced[PixelSchedule]:
    """Some schedules of the template that reads its input from `source`, with what they take."""
    costs = core.costs
    runs, plans = _runs(workload, schedules, core, source), _plans(schedules)
    aligned = _aligned(workload, schedules, source, patterns=shape.bodies > 1)
    fetch = _Fetch(workload, shape, plans, source, core)
    compute = shape.entries * _entry(workload, shape, plans.tall, aligned, core, source, runs)
    move = fetch.per_tile(runs)
    parts = np.where(plans.channels > 0, -(-workload.in_channels // np.maximum(plans.channels, 1)), 1)[runs.schedule]
    store = parts * runs.vectors * costs.store + activation_instructions(workload) * runs.fmas
    store = shape.groups * (parts * shape.bodies * costs.body + shape.group * store)
    cycles = runs.tiles * (compute + move - costs.overlap * np.minimum(compute, move) + store)
    stores = runs.tiles * shape.groups * shape.group * parts * runs.vectors

    def total(numbers: Array) -> Array:
        return np.bincount(runs.schedule, numbers, len(schedules)).astype(np.float64, copy=False)

    blocks = workload.batch * -(-workload.out_height // plans.rows)
    fixed = blocks * (fetch.per_block(total(runs.tiles)) + total(cycles)) + workload.batch * fetch.first() + costs.call
    return Priced(schedules, fixed, blocks * total(stores), blocks * workload.out_channels * plans.rows)


@dataclass(frozen=True, eq=False)
class _Plans:
    """What schedules say, as arrays [schedules]."""

    rows: Array
    channels: Array
    tall: NDArray[np.bool_]
    filters_inside: NDArray[np.bool_]
    prefetch: NDArray[np.bool_]


@lru_cache(maxsize=1024)
def _plans(schedules: tuple[PixelSchedule, ...]) -> _Plans:
    names = ("rows", "channels", "height", "filters_inside", "prefetch")
    rows, channels, height, inside, prefetch = (np.array([getattr(s, name) for s in schedules]) for name in names)
    return _Plans(rows, channels, height > 0, inside.astype(bool), prefetch.astype(bool))


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of equal tiles of the row blocks of some schedules, one after the other: arrays [runs].

    Attributes
    ----------
    schedule: the number of its schedule.
    tiles: how many there are.
    vectors, lanes, height: of a tile.
    fmas: cycles to start an FMA on each of its vectors.
    loads, splits: cycles to start a load of each, and how many more where that crosses a line of the cache.
    first_lanes, first_fma, first_loads: of its first vector.
    row, channel: bytes of the input that a row and all rows of a tile read in a channel.
    """

    schedule: NDArray[np.int64]
    tiles: Array
    vectors: Array
    lanes: Array
    height: Array
    fmas: Array
    loads: Array
    splits: Array
    first_lanes: Array
    first_fma: Array
    first_loads: Array
    row: Array
    channel: Array


@lru_cache(maxsize=8192)  # the encodings of a layer share them, and so does the layer at other densities
def _runs(workload: ConvWorkload, schedules: tuple[PixelSchedule, ...], core: Core, source: PlaneLayout) -> _Runs:
    widths, line = core.widths(workload.precision.arithmetic), core.costs.line
    rows = []
    for number, schedule in enumerate(schedules):
        for run in block_tiles(workload, schedule, core.isa, source):
            kinds = [(width_of(widths, lanes), count) for lanes, count in run.widths]
            first = width_of(widths, run.vectors[0].lanes)
            rows.append(
                (
                    number,
                    run.rows * run.columns,
                    len(run.vectors),
                    sum(lanes * count for lanes, count in run.widths),
                    run.height,
                    sum(count / width.fma for width, count in kinds),
                    sum(count * width.split / width.loads for width, count in kinds),
                    sum(count * (width.split - 1) / width.loads for width, count in kinds),
                    first.lanes,
                    first.fma,
                    first.loads,
                    _row_bytes(workload, source, run, line),
                    _channel_bytes(workload, schedule, source, run, line),
                )
            )
    numbers = np.array(rows, np.float64).reshape(-1, len(fields(_Runs))).T
    return _Runs(numbers[0].astype(np.int64), *numbers[1:])


def _entry(
    workload: ConvWorkload,
    shape: TapShape,
    tall: NDArray[np.bool_],
    aligned: Array,
    core: Core,
    source: PlaneLayout,
    runs: _Runs,
) -> Array:
    """Cycles that an entry's instructions need in one tile, [runs]: what the busiest of the core's units starts.

    `tall`, `aligned` [schedules]: whether tiles have rows, and the share of loads that cross no line of the cache.
    """
    isa, costs, taps, vectors = core.isa, core.costs, shape.taps, runs.vectors
    # Input vectors for one output vector: the taps of a column share those of the rows that they have in common. With a
    # stride neighbouring taps read different phases.
    inputs = np.full(len(vectors), float(taps))
    if shape.group == 1 and workload.stride[0] == 1:
        shared = shape.columns + (taps - shape.columns) / runs.height
        inputs = np.where(tall[runs.schedule], shared, inputs)
    weights: Numbers = taps * shape.group
    if isa.lane_indexed_fma:
        weights = -(-weights // runs.first_lanes)
    fmas = taps * shape.group * vectors
    # An input that is used once is a memory operand of its FMA where the ISA has those.
    if source.step(workload)[1] > 1:
        inputs = inputs * costs.strided
    operands = (inputs == taps) & (shape.group == 1 and isa.memory_operands)
    loads = np.where(operands, 0.0, inputs * vectors)
    # Where loads come in pairs, each tap has its own address, or one for each row of the tile where those are not whole
    # vectors apart, and entries of one tap share what a round takes.
    addresses = taps * np.where(source.row_stride % runs.first_lanes > 0, runs.height, 1) if isa.paired > 1 else 0
    round_ = costs.entry / ENTRIES if isa.lane_indexed_fma and taps == 1 else costs.entry
    issue = (fmas + (loads + weights) / isa.paired + addresses + round_) / core.issue
    # Shuffles run where FMAs do.
    shuffles = taps if source.step(workload)[1] > 1 else 0
    cycles = np.maximum.reduce(
        [
            (taps * shape.group + shuffles) * runs.fmas,
            inputs * (runs.loads - runs.splits * aligned[runs.schedule]) + weights / runs.first_loads,
            np.where(fmas < costs.fma_latency * runs.first_fma * taps, costs.fma_latency * taps, 0.0),
            issue,
        ]
    )
    return cycles + costs.in_order * issue + costs.load * (loads + weights)


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Cycles in which input and weights come from the second-level cache, or from behind it: [schedules] or [runs]."""

    workload: ConvWorkload
    shape: TapShape
    plans: _Plans
    source: PlaneLayout
    core: Core

    @property
    def weights(self) -> int:
        """Bytes of all weights and indices."""
        return weight_bytes(self.workload, self.shape)

    @property
    def block(self) -> Array:
        """Bytes of a row block of the input."""
        return self._input(self.plans.rows)

    def _input(self, rows: Numbers) -> Numbers:
        planes = _planes(self.workload, self.source)
        row = self.workload.precision.bytes * self.source.pitch
        return self.workload.in_channels * planes * (rows + halo(self.workload)) * row

    def first(self) -> Array:
        """Cycles, once per image, for what is not in the second-level cache when the layer begins."""
        whole = self._input(self.workload.out_height)
        costs = self.core.costs
        lines = whole / costs.line if whole > self.core.l2_kib * 1024 else 0.0
        return costs.streamed * self.weights / costs.memory_bytes + np.where(
            self.plans.prefetch, 0.0, costs.cold * lines
        )

    def per_block(self, tiles: Array) -> Array:
        """Cycles for the weights of a block of so many tiles."""
        costs = self.core.costs
        far = self.weights + self.block > self.core.l2_kib * 1024
        one = self.weights / np.where(far, costs.l3_bytes, costs.l2_bytes)
        near = self.weights / self.shape.groups <= self.core.l1_kib * 1024 / 2
        again = 0.0 if near else (tiles - 1) * self.weights / costs.l2_bytes
        return np.where(self.plans.filters_inside, tiles * one, one + again)

    def per_tile(self, runs: _Runs) -> Array:
        """Cycles for the input that all groups read in one tile."""
        shape, plans, w, of, costs = self.shape, self.plans, self.workload, runs.schedule, self.core.costs
        miss = np.where(self.block > costs.tlb_kib * 1024, costs.tlb_miss, 1.0)[of]
        columns = shape.columns if self.source.own_columns else 1
        tall = columns * (runs.height + shape.taps / shape.columns - 1) * runs.row
        entry = np.minimum(runs.channel, np.where(plans.tall[of], tall, shape.taps * runs.row))
        read = np.minimum(shape.entries * entry, _channels_read(w, shape) * runs.channel)
        # What stays from one group of filters to the next is not fetched again.
        again = read * (1 - self.core.l1_kib * 1024 / (w.in_channels / w.groups * runs.channel))
        stays = np.maximum(np.minimum(read, w.in_channels * runs.channel), again)
        read = np.where(plans.filters_inside[of], stays, read)
        in_parts = plans.channels[of]
        parts = -(-w.in_channels // np.maximum(in_parts, 1))
        sums = 2 * (parts - 1) * shape.groups * shape.group * w.precision.arithmetic.bytes * runs.lanes
        return np.where(in_parts > 0, w.in_channels * runs.channel * miss + sums, read * miss) / costs.l2_bytes


def tile_channel_bytes(workload: ConvWorkload, schedule: PixelSchedule, core: Core, source: PlaneLayout) -> float:
    """Bytes of an input channel that the largest tile reads."""
    runs = block_tiles(workload, schedule, core.isa, source)
    return max(_channel_bytes(workload, schedule, source, run, core.costs.line) for run in runs)


def halo(workload: ConvWorkload) -> int:
    """Rows of a plane that a row of outputs reads beyond its own."""
    return (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]


def _planes(workload: ConvWorkload, source: PlaneLayout) -> int:
    return 1 if workload.kernel == (1, 1) else len(source.phases)


def _channel_bytes(
    workload: ConvWorkload, schedule: PixelSchedule, source: PlaneLayout, run: TileRun, line: int
) -> float:
    row = _row_bytes(workload, source, run, line)
    if not schedule.height:
        return _planes(workload, source) * (row + workload.precision.bytes * halo(workload) * source.pitch)
    rows = run.height + halo(workload)
    # Rows that follow each other share lines.
    together = math.inf if source.interleaved else workload.precision.bytes * rows * source.pitch + line
    return _planes(workload, source) * min(rows * row, together)


def _row_bytes(workload: ConvWorkload, source: PlaneLayout, run: TileRun, line: int) -> float:
    """Bytes that a row of a tile reads; columns that share planes reach into the next line."""
    beyond = 0 if source.own_columns or workload.kernel[1] == 1 else line
    return workload.precision.bytes * source.step(workload)[1] * run.row_lanes + beyond


def _channels_read(workload: ConvWorkload, shape: TapShape) -> float:
    """Input channels that the groups read, added up, when entries fall on channels at random."""
    channels = workload.in_channels / workload.groups
    per_group = shape.entries * shape.taps / shape.groups / (workload.kernel[0] * workload.kernel[1])
    entries = shape.entries / shape.groups
    touched = channels * (1 - (1 - 1 / channels) ** entries) if channels > 1 else 1.0
    return shape.groups * max(min(touched, entries), min(per_group, channels))


@lru_cache(maxsize=8192)
def _aligned(
    workload: ConvWorkload, schedules: tuple[PixelSchedule, ...], source: PlaneLayout, *, patterns: bool
) -> Array:
    """Share of the loads that start at a multiple of the vector's size, [schedules]."""
    lanes = [schedule.lanes for schedule in schedules]
    shares = {each: _aligned_share(workload, each, source, patterns=patterns) for each in dict.fromkeys(lanes)}
    return np.array([shares[each] for each in lanes])


def _aligned_share(workload: ConvWorkload, lanes: int, source: PlaneLayout, *, patterns: bool) -> float:
    if source.own_columns and workload.kernel[1] > 1:
        # A tap is aligned where its row is: the first always, the others when so many rows are whole vectors.
        dh, sh = workload.dilation[0], workload.stride[0]
        offsets = [row * dh // sh * source.row_stride for row in range(workload.kernel[0])]
        return sum(offset % lanes == 0 for offset in offsets) / len(offsets)
    if source.row_stride % lanes:
        return 0.0
    if workload.kernel[1] == 1:
        return 1.0
    if source.align % lanes:
        return 0.0
    # The centre column is aligned. Patterns keep the centre and half of their positions lie in its column.
    return 0.5 if patterns else 1 / workload.kernel[1]
