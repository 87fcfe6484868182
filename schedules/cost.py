"""An analytic model of a core: cycles that a kernel needs for the taps of an encoding.

It counts what a loop iteration starts (FMAs, loads, instructions) against what the core can start per cycle, and the
lines of input and weights against what the caches deliver, as a roofline does, and adds loop overheads and stores. It
ranks encodings and schedules. The constants were fitted to some hundred schedules measured on Zen 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from pconvgen.precision import BYTES
from pconvgen.schedules.isa import Isa, VectorWidth
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule
from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.pixels import ENTRIES, block_tiles
from pconvgen.templates.planes import PlaneLayout
from pconvgen.templates.tiles import Vector
from pconvgen.workload import Activation, ConvWorkload

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
    """Cycles of a kernel as a function of where its output lies.

    A target enters the cost by two numbers only, so that what a schedule costs is computed once for all targets:

        cycles = fixed + stores * store_cycles(target) + zeros * zeros_cycles(target)

    Attributes
    ----------
    fixed: cycles with an output that is stored as it is.
    stores: vectors that are stored.
    zeros: rows of outputs that are stored.
    """

    fixed: float
    stores: float
    zeros: float

    def to(self, target: PlaneLayout) -> float:
        """Cycles with the output in a layout."""
        return self.fixed + self.stores * store_cycles(target) + self.zeros * zeros_cycles(target)


def pixel_cycles(
    workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, isa: Isa, l2_kib: int, source: PlaneLayout
) -> KernelCycles:
    """Cycles of the `pixels` template that reads its input from `source`."""
    tiles = block_tiles(workload, schedule, isa, source)
    fetch = _Fetch(workload, shape, schedule, source, l2_kib)
    cycles, stores = fetch.per_block(sum(run.rows * run.columns for run in tiles)), 0
    activate = activation_instructions(workload)
    parts = -(-workload.in_channels // schedule.channels) if schedule.channels else 1
    for run in tiles:
        compute = shape.entries * _entry(workload, shape, schedule, isa, source, run.vectors)
        move = fetch.per_tile(run.vectors)
        count = len(run.vectors)
        store = parts * count * STORE
        if activate:
            store += activate * sum(1 / _width(isa, vector.lanes).fma for vector in run.vectors)
        store = shape.groups * (parts * shape.bodies * BODY + shape.group * store)
        hidden = OVERLAP * min(compute, move)
        number = run.rows * run.columns
        cycles += number * (compute + move - hidden + store)
        stores += number * shape.groups * shape.group * parts * count
    blocks = workload.batch * -(-workload.out_height // schedule.rows)
    fixed = blocks * cycles + workload.batch * fetch.first() + CALL
    return KernelCycles(fixed, blocks * stores, blocks * workload.out_channels * schedule.rows)


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
    workload: ConvWorkload,
    shape: TapShape,
    schedule: PixelSchedule,
    isa: Isa,
    source: PlaneLayout,
    vectors: tuple[Vector, ...],
) -> float:
    """Cycles that an entry's instructions need in one tile: what the busiest of the core's units starts."""
    widths = [_width(isa, vector.lanes) for vector in vectors]
    aligned = _aligned_share(workload, shape, schedule, source)
    height = max(vector.row for vector in vectors) + 1
    # Input vectors for one output vector: the taps of a column share those of the rows that they have in common. With a
    # stride neighbouring taps read different phases.
    inputs = shape.taps
    if shape.group == 1 and schedule.height and workload.stride[0] == 1:
        inputs = shape.columns + (shape.taps - shape.columns) / height
    weights = shape.taps * shape.group
    if isa.by_element:
        weights = -(-weights // widths[0].lanes)
    fmas = shape.taps * shape.group * len(vectors)
    # An input that is used once is a memory operand of its FMA where the ISA has those.
    if source.step(workload)[1] > 1:
        inputs *= STRIDED
    loads = 0.0 if inputs == shape.taps and shape.group == 1 and isa.memory_operands else inputs * len(vectors)
    # Where loads come in pairs, each tap has its own address, or one for each row of the tile where those are not whole
    # vectors apart, and entries of one tap share what a round takes.
    addresses = shape.taps * (height if source.line % widths[0].lanes else 1) if isa.paired > 1 else 0
    round_ = ENTRY / ENTRIES if isa.by_element and shape.taps == 1 else ENTRY
    issue = (fmas + (loads + weights) / isa.paired + addresses + round_) / isa.issue
    # Shuffles run where FMAs do.
    shuffles = shape.taps if source.step(workload)[1] > 1 else 0
    cycles = max(
        (shape.taps * shape.group + shuffles) * sum(1 / width.fma for width in widths),
        inputs * sum((width.split - (width.split - 1) * aligned) / width.loads for width in widths)
        + weights / widths[0].loads,
        FMA_LATENCY * shape.taps if fmas < FMA_LATENCY * widths[0].fma * shape.taps else 0.0,
        issue,
    )
    # The small cores among those that multiply by element issue in order: there, nothing hides entirely.
    return cycles + (IN_ORDER * issue if isa.by_element else LOAD * (loads + weights))


def weight_bytes(workload: ConvWorkload, shape: TapShape) -> int:
    """Bytes of all weights and indices."""
    return shape.entries * (workload.precision.weight_bytes * shape.taps * shape.group + 4)


@dataclass(frozen=True)
class _Fetch:
    """Cycles in which input and weights come from the second-level cache, or from behind it."""

    workload: ConvWorkload
    shape: TapShape
    schedule: PixelSchedule
    source: PlaneLayout
    l2_kib: int

    @property
    def weights(self) -> int:
        """Bytes of all weights and indices."""
        return weight_bytes(self.workload, self.shape)

    @property
    def block(self) -> int:
        """Bytes of a row block of the input."""
        return self._input(self.schedule.rows)

    def _input(self, rows: int) -> int:
        planes = _planes(self.workload, self.source)
        row = self.workload.precision.bytes * self.source.pitch
        return self.workload.in_channels * planes * (rows + halo(self.workload)) * row

    def first(self) -> float:
        """Cycles, once per image, for what is not in the second-level cache when the layer begins."""
        far = self._input(self.workload.out_height) > self.l2_kib * 1024
        lines = self._input(self.workload.out_height) / LINE if far and not self.schedule.prefetch else 0.0
        return STREAMED * self.weights / MEMORY_BYTES + COLD * lines

    def per_block(self, tiles: int) -> float:
        """Cycles for the weights of a block."""
        far = self.weights + self.block > self.l2_kib * 1024
        one = self.weights / (L3_BYTES if far else L2_BYTES)
        if self.schedule.filters_inside:
            return tiles * one
        near = self.weights / self.shape.groups <= L1_KIB * 1024 / 2
        return one + (0 if near else (tiles - 1) * self.weights / L2_BYTES)

    def per_tile(self, vectors: tuple[Vector, ...]) -> float:
        """Cycles for the input that all groups read in one tile."""
        shape, schedule, w = self.shape, self.schedule, self.workload
        channel = _channel_bytes(w, schedule, self.source, vectors)
        miss = TLB_MISS if self.block > TLB_KIB * 1024 else 1.0
        if schedule.channels:
            parts = -(-w.in_channels // schedule.channels)
            sums = (
                2
                * (parts - 1)
                * shape.groups
                * shape.group
                * BYTES[self.workload.precision.arithmetic]
                * sum(vector.lanes for vector in vectors)
            )
            return (w.in_channels * channel * miss + sums) / L2_BYTES
        height = max(vector.row for vector in vectors) + 1
        row = _row_bytes(w, self.source, vectors)
        if schedule.height:
            taps_of_column = shape.taps / shape.columns
            columns = shape.columns if self.source.own_columns else 1
            entry = min(channel, columns * (height + taps_of_column - 1) * row)
        else:
            entry = min(channel, shape.taps * row)
        read = min(shape.entries * entry, _channels_read(w, shape) * channel)
        if schedule.filters_inside:
            # What stays from one group of filters to the next is not fetched again.
            tile = w.in_channels / w.groups * channel
            read = max(min(read, w.in_channels * channel), read * (1 - L1_KIB * 1024 / tile))
        return read * miss / L2_BYTES


def tile_channel_bytes(workload: ConvWorkload, schedule: PixelSchedule, isa: Isa, source: PlaneLayout) -> float:
    """Bytes of an input channel that the largest tile reads."""
    tiles = block_tiles(workload, schedule, isa, source)
    return max(_channel_bytes(workload, schedule, source, run.vectors) for run in tiles)


def halo(workload: ConvWorkload) -> int:
    """Rows of a plane that a row of outputs reads beyond its own."""
    return (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]


def _planes(workload: ConvWorkload, source: PlaneLayout) -> int:
    return 1 if workload.kernel == (1, 1) else len(source.phases)


def _channel_bytes(
    workload: ConvWorkload, schedule: PixelSchedule, source: PlaneLayout, vectors: tuple[Vector, ...]
) -> float:
    row = _row_bytes(workload, source, vectors)
    if not schedule.height:
        return _planes(workload, source) * (row + workload.precision.bytes * halo(workload) * source.pitch)
    rows = max(vector.row for vector in vectors) + 1 + halo(workload)
    # Rows that follow each other share lines.
    together = math.inf if source.interleaved else workload.precision.bytes * rows * source.pitch + LINE
    return _planes(workload, source) * min(rows * row, together)


def _row_bytes(workload: ConvWorkload, source: PlaneLayout, vectors: tuple[Vector, ...]) -> float:
    """Bytes that a row of a tile reads; columns that share planes reach into the next line."""
    beyond = 0 if source.own_columns or workload.kernel[1] == 1 else LINE
    return (
        workload.precision.bytes * source.step(workload)[1] * sum(vector.lanes for vector in vectors if vector.row == 0)
        + beyond
    )


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
    return min((width for width in isa.widths if width.lanes >= lanes), key=lambda width: width.lanes)


def _channels_read(workload: ConvWorkload, shape: TapShape) -> float:
    """Input channels that the groups read, added up, when entries fall on channels at random."""
    channels = workload.in_channels / workload.groups
    per_group = shape.entries * shape.taps / shape.groups / (workload.kernel[0] * workload.kernel[1])
    entries = shape.entries / shape.groups
    touched = channels * (1 - (1 - 1 / channels) ** entries) if channels > 1 else 1.0
    return shape.groups * max(min(touched, entries), min(per_group, channels))


def _aligned_share(workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, source: PlaneLayout) -> float:
    """Share of the loads that start at a multiple of the vector's size."""
    if source.own_columns and workload.kernel[1] > 1:
        # A tap is aligned where its row is: the first always, the others when so many rows are whole vectors.
        dh, sh = workload.dilation[0], workload.stride[0]
        offsets = [row * dh // sh * source.line for row in range(workload.kernel[0])]
        return sum(offset % schedule.lanes == 0 for offset in offsets) / len(offsets)
    if source.line % schedule.lanes:
        return 0.0
    if workload.kernel[1] == 1:
        return 1.0
    if source.align % schedule.lanes:
        return 0.0
    # The centre column is aligned. Patterns keep the centre and half of their positions lie in its column.
    return 0.5 if shape.bodies > 1 else 1 / workload.kernel[1]
