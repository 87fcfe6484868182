"""An analytic model of a core: cycles that a kernel needs for the taps of an encoding.

It counts what a loop iteration starts (FMAs, loads, instructions) against what the core can start per cycle, and the
lines of input and weights against what the caches deliver, as a roofline does, and adds loop overheads and stores. It
ranks encodings and schedules. The constants were fitted to some hundred schedules measured on Zen 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.pixels import ENTRIES, block_tiles
from pconvgen.templates.planes import PlaneLayout
from pconvgen.templates.tiles import TileRun
from pconvgen.values.isa import Isa, VectorWidth
from pconvgen.values.precision import BYTES
from pconvgen.values.schedule import ChannelSchedule, PixelSchedule
from pconvgen.values.workload import Activation, ConvWorkload

Array = NDArray[np.float64]
Numbers = Any
"""A number, or a float64 array of them."""

FMA_LATENCY = 4.0
"""Cycles until an accumulator can be added to again."""
ENTRY = 8
"""Instructions for index, address and branch of one entry, beside its taps."""
STRIDED = 2.5
"""What a load of every second element costs: two loads and a shuffle."""
BODY = 10.0
"""Cycles to enter and leave the loop over a body's entries, whose exit is mispredicted."""
STORE = 3.5
"""Cycles for the epilogue and store of one vector, or to pack one."""
CALL = 1500.0
"""Cycles to call a kernel."""
ARITHMETIC = {"sigmoid": 21, "silu": 21, "divide": 5}
"""Instructions of the operations of an activation that take the time of an FMA; of others one."""
PLANE = 2.0
"""Cycles to store a vector in a further plane, or split by the stride."""
ZEROS = 1.5
"""Cycles for the zeros beside a row of a plane."""
L1_KIB = 32
"""What a tile's input may take of the first-level cache to stay there while filters go by."""
L2_BYTES = 30.0
"""Bytes per cycle that come from the second-level cache, where the input of a block lies."""
L3_BYTES = 20.0
"""Bytes per cycle that come from behind it."""
TLB_KIB = 256
"""What the pages of the first-level TLB cover."""
TLB_MISS = 1.15
"""How much longer lines take when the input of a block is larger than that."""
OVERLAP = 0.95
"""Share of the shorter of arithmetic and fetching that hides behind the longer."""
LOAD = 0.15
"""Cycles of a load instruction that do not hide on a core that issues out of order."""
IN_ORDER = 0.2
"""Share of the time to start instructions that an in-order core does not hide."""
LINE = 64
"""Bytes of a cache line."""
MEMORY_BYTES = 6.0
"""Bytes per cycle that one core reads from memory."""
STREAMED = 0.4
"""Share of reading the weights from memory, where they are after the rest of a network, that does not hide."""
COLD = 20.0
"""Cycles for a line of input that no prefetch has brought from behind the second-level cache."""


@dataclass(frozen=True)
class KernelCycles:
    """Cycles of a kernel as a function of where its output lies; of many kernels, where the numbers are arrays.

    A target enters the cost by two numbers only, so that what a schedule costs is computed once for all targets:

        cycles = fixed + stores * store_cycles(target) + zeros * zeros_cycles(target)

    Attributes
    ----------
    fixed: cycles with an output that is stored as it is.
    stores: vectors that are stored.
    zeros: rows of outputs that are stored.
    """

    fixed: Numbers
    stores: Numbers
    zeros: Numbers

    def to(self, target: PlaneLayout) -> Numbers:
        """Cycles with the output in a layout."""
        return self.fixed + self.stores * store_cycles(target) + self.zeros * zeros_cycles(target)


def pixel_cycles(
    workload: ConvWorkload,
    shape: TapShape,
    schedules: tuple[PixelSchedule, ...],
    isa: Isa,
    l2_kib: int,
    source: PlaneLayout,
) -> KernelCycles:
    """Cycles of the `pixels` template that reads its input from `source`: float64 [schedules]."""
    runs, plans = _runs(workload, schedules, isa, source), _plans(schedules)
    aligned = _aligned(workload, schedules, source, patterns=shape.bodies > 1)
    fetch = _Fetch(workload, shape, plans, source, l2_kib)
    compute = shape.entries * _entry(workload, shape, plans.tall, aligned, isa, source, runs)
    move = fetch.per_tile(runs)
    parts = np.where(plans.channels > 0, -(-workload.in_channels // np.maximum(plans.channels, 1)), 1)[runs.schedule]
    store = parts * runs.vectors * STORE + activation_instructions(workload) * runs.fmas
    store = shape.groups * (parts * shape.bodies * BODY + shape.group * store)
    cycles = runs.tiles * (compute + move - OVERLAP * np.minimum(compute, move) + store)
    stores = runs.tiles * shape.groups * shape.group * parts * runs.vectors

    def total(numbers: Array) -> Array:
        return np.bincount(runs.schedule, numbers, len(schedules))

    blocks = workload.batch * -(-workload.out_height // plans.rows)
    fixed = blocks * (fetch.per_block(total(runs.tiles)) + total(cycles)) + workload.batch * fetch.first() + CALL
    return KernelCycles(fixed, blocks * total(stores), blocks * workload.out_channels * plans.rows)


@dataclass(frozen=True, eq=False)
class _Plans:
    """What schedules say, as arrays [schedules]."""

    rows: Array
    channels: Array
    tall: Array
    filters_inside: Array
    prefetch: Array


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
def _runs(workload: ConvWorkload, schedules: tuple[PixelSchedule, ...], isa: Isa, source: PlaneLayout) -> _Runs:
    rows = []
    for number, schedule in enumerate(schedules):
        for run in block_tiles(workload, schedule, isa, source):
            kinds = [(_width(isa, lanes), count) for lanes, count in run.widths]
            first = _width(isa, run.vectors[0].lanes)
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
                    _row_bytes(workload, source, run),
                    _channel_bytes(workload, schedule, source, run),
                )
            )
    numbers = np.array(rows, np.float64).reshape(-1, len(fields(_Runs))).T
    return _Runs(numbers[0].astype(np.int64), *numbers[1:])


def activation_instructions(workload: ConvWorkload) -> int:
    """Instructions to apply the activation to one vector, as many as FMAs would take that time."""
    activation = workload.epilogue.activation
    return 0 if activation is None else _instructions(activation)


@lru_cache
def _instructions(activation: Activation) -> int:
    operands = (operand for operand in activation.operands if isinstance(operand, Activation) and operand.operands)
    return ARITHMETIC.get(activation.name, 1) + sum(map(_instructions, operands))


def store_cycles(target: PlaneLayout) -> float:
    """Cycles to store a vector beyond those of storing it once."""
    planes = len(target.phases) // target.stride[0]
    return PLANE * (planes - 1)


def zeros_cycles(target: PlaneLayout) -> float:
    """Cycles for the zeros beside a row of outputs."""
    planes = len(target.phases) // target.stride[0]
    return 0.0 if target.pitch * target.stride[1] == target.width and planes == 1 else planes * ZEROS


def plane_cycles(target: PlaneLayout, lanes: int) -> float:
    """Cycles to store the planes of a channel of which one element after the other is known."""
    vectors = target.height * -(-target.width // lanes)
    return vectors * (STORE + store_cycles(target)) + target.height * zeros_cycles(target)


def pack_cycles(target: PlaneLayout, lanes: int) -> float:
    """Cycles to pack an image."""
    return target.size / lanes * STORE


def _entry(
    workload: ConvWorkload, shape: TapShape, tall: Array, aligned: Array, isa: Isa, source: PlaneLayout, runs: _Runs
) -> Array:
    """Cycles that an entry's instructions need in one tile, [runs]: what the busiest of the core's units starts.

    `tall`, `aligned` [schedules]: whether tiles have rows, and the share of loads that cross no line of the cache.
    """
    taps, vectors = shape.taps, runs.vectors
    # Input vectors for one output vector: the taps of a column share those of the rows that they have in common. With a
    # stride neighbouring taps read different phases.
    inputs = np.full(len(vectors), float(taps))
    if shape.group == 1 and workload.stride[0] == 1:
        shared = shape.columns + (taps - shape.columns) / runs.height
        inputs = np.where(tall[runs.schedule], shared, inputs)
    weights: Numbers = taps * shape.group
    if isa.by_element:
        weights = -(-weights // runs.first_lanes)
    fmas = taps * shape.group * vectors
    # An input that is used once is a memory operand of its FMA where the ISA has those.
    if source.step(workload)[1] > 1:
        inputs = inputs * STRIDED
    operands = (inputs == taps) & (shape.group == 1 and isa.memory_operands)
    loads = np.where(operands, 0.0, inputs * vectors)
    # Where loads come in pairs, each tap has its own address, or one for each row of the tile where those are not whole
    # vectors apart, and entries of one tap share what a round takes.
    addresses = taps * np.where(source.line % runs.first_lanes > 0, runs.height, 1) if isa.paired > 1 else 0
    round_ = ENTRY / ENTRIES if isa.by_element and taps == 1 else ENTRY
    issue = (fmas + (loads + weights) / isa.paired + addresses + round_) / isa.issue
    # Shuffles run where FMAs do.
    shuffles = taps if source.step(workload)[1] > 1 else 0
    cycles = np.maximum.reduce(
        [
            (taps * shape.group + shuffles) * runs.fmas,
            inputs * (runs.loads - runs.splits * aligned[runs.schedule]) + weights / runs.first_loads,
            np.where(fmas < FMA_LATENCY * runs.first_fma * taps, FMA_LATENCY * taps, 0.0),
            issue,
        ]
    )
    # The small cores among those that multiply by element issue in order: there, nothing hides entirely.
    return cycles + (IN_ORDER * issue if isa.by_element else LOAD * (loads + weights))


def weight_bytes(workload: ConvWorkload, shape: TapShape) -> int:
    """Bytes of all weights and indices."""
    return shape.entries * (workload.precision.weight_bytes * shape.taps * shape.group + 4)


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Cycles in which input and weights come from the second-level cache, or from behind it: [schedules] or [runs]."""

    workload: ConvWorkload
    shape: TapShape
    plans: _Plans
    source: PlaneLayout
    l2_kib: int

    @property
    def weights(self) -> int:
        """Bytes of all weights and indices."""
        return weight_bytes(self.workload, self.shape)

    @property
    def block(self) -> Array:
        """Bytes of a row block of the input."""
        return self._input(self.plans.rows)

    def _input(self, rows: Any) -> Any:
        planes = _planes(self.workload, self.source)
        row = self.workload.precision.bytes * self.source.pitch
        return self.workload.in_channels * planes * (rows + halo(self.workload)) * row

    def first(self) -> Array:
        """Cycles, once per image, for what is not in the second-level cache when the layer begins."""
        whole = self._input(self.workload.out_height)
        lines = whole / LINE if whole > self.l2_kib * 1024 else 0.0
        return STREAMED * self.weights / MEMORY_BYTES + np.where(self.plans.prefetch, 0.0, COLD * lines)

    def per_block(self, tiles: Array) -> Array:
        """Cycles for the weights of a block of so many tiles."""
        far = self.weights + self.block > self.l2_kib * 1024
        one = self.weights / np.where(far, L3_BYTES, L2_BYTES)
        near = self.weights / self.shape.groups <= L1_KIB * 1024 / 2
        again = 0.0 if near else (tiles - 1) * self.weights / L2_BYTES
        return np.where(self.plans.filters_inside, tiles * one, one + again)

    def per_tile(self, runs: _Runs) -> Array:
        """Cycles for the input that all groups read in one tile."""
        shape, plans, w, of = self.shape, self.plans, self.workload, runs.schedule
        miss = np.where(self.block > TLB_KIB * 1024, TLB_MISS, 1.0)[of]
        columns = shape.columns if self.source.own_columns else 1
        tall = columns * (runs.height + shape.taps / shape.columns - 1) * runs.row
        entry = np.minimum(runs.channel, np.where(plans.tall[of], tall, shape.taps * runs.row))
        read = np.minimum(shape.entries * entry, _channels_read(w, shape) * runs.channel)
        # What stays from one group of filters to the next is not fetched again.
        again = read * (1 - L1_KIB * 1024 / (w.in_channels / w.groups * runs.channel))
        stays = np.maximum(np.minimum(read, w.in_channels * runs.channel), again)
        read = np.where(plans.filters_inside[of], stays, read)
        in_parts = plans.channels[of]
        parts = -(-w.in_channels // np.maximum(in_parts, 1))
        sums = 2 * (parts - 1) * shape.groups * shape.group * BYTES[w.precision.arithmetic] * runs.lanes
        return np.where(in_parts > 0, w.in_channels * runs.channel * miss + sums, read * miss) / L2_BYTES


def tile_channel_bytes(workload: ConvWorkload, schedule: PixelSchedule, isa: Isa, source: PlaneLayout) -> float:
    """Bytes of an input channel that the largest tile reads."""
    return max(_channel_bytes(workload, schedule, source, run) for run in block_tiles(workload, schedule, isa, source))


def halo(workload: ConvWorkload) -> int:
    """Rows of a plane that a row of outputs reads beyond its own."""
    return (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]


def _planes(workload: ConvWorkload, source: PlaneLayout) -> int:
    return 1 if workload.kernel == (1, 1) else len(source.phases)


def _channel_bytes(workload: ConvWorkload, schedule: PixelSchedule, source: PlaneLayout, run: TileRun) -> float:
    row = _row_bytes(workload, source, run)
    if not schedule.height:
        return _planes(workload, source) * (row + workload.precision.bytes * halo(workload) * source.pitch)
    rows = run.height + halo(workload)
    # Rows that follow each other share lines.
    together = math.inf if source.interleaved else workload.precision.bytes * rows * source.pitch + LINE
    return _planes(workload, source) * min(rows * row, together)


def _row_bytes(workload: ConvWorkload, source: PlaneLayout, run: TileRun) -> float:
    """Bytes that a row of a tile reads; columns that share planes reach into the next line."""
    beyond = 0 if source.own_columns or workload.kernel[1] == 1 else LINE
    return workload.precision.bytes * source.step(workload)[1] * run.row_lanes + beyond


def channel_cycles(workload: ConvWorkload, shape: TapShape, schedule: ChannelSchedule, isa: Isa) -> float:
    """Cycles of the `channels` template: its FMAs, or reading the weights from memory if that takes longer."""
    vectors = shape.group // schedule.lanes
    width = _width(isa, schedule.lanes)
    fma = schedule.images * vectors / width.fma
    tap = max(fma, (vectors + schedule.images) / width.loads, FMA_LATENCY / schedule.unroll)
    compute = shape.entries * (shape.taps * tap + ENTRY / isa.issue)
    memory = weight_bytes(workload, shape) / MEMORY_BYTES
    store = STORE + activation_instructions(workload) / width.fma
    stores = shape.groups * (BODY + schedule.images * vectors * store)
    return -(-workload.batch // schedule.images) * (max(compute, memory) + stores) + CALL


def _width(isa: Isa, lanes: int) -> VectorWidth:
    """The narrowest width that holds `lanes`."""
    return next(width for width in reversed(isa.widths) if width.lanes >= lanes)


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
        offsets = [row * dh // sh * source.line for row in range(workload.kernel[0])]
        return sum(offset % lanes == 0 for offset in offsets) / len(offsets)
    if source.line % lanes:
        return 0.0
    if workload.kernel[1] == 1:
        return 1.0
    if source.align % lanes:
        return 0.0
    # The centre column is aligned. Patterns keep the centre and half of their positions lie in its column.
    return 0.5 if patterns else 1 / workload.kernel[1]
