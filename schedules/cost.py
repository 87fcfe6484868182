"""An analytic model of a core: cycles that a kernel needs for the taps of an encoding.

It counts what a loop iteration starts (FMAs, loads) against what the core can start per cycle, as a roofline does,
and adds loop overheads and stores. It ranks encodings and schedules; of memory it only knows that a matrix that is
used once comes from it.
"""

from __future__ import annotations

from pconvgen.schedules.isa import Isa, VectorWidth
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule
from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.pixels import ENTRIES, block_tiles, pixel_layout
from pconvgen.workload import ConvWorkload

FMA_LATENCY = 4.0
"""Cycles until an accumulator can be added to again."""
ENTRY = 5
"""Instructions for index, address and branch of one entry, beside its taps."""
BODY = 8.0
"""Cycles to enter and leave the loop over a body's entries, whose exit is mispredicted."""
STORE = 2.0
"""Cycles for the epilogue and store, or the copy, of one vector."""
L2_BYTES = 28.0
"""Bytes per cycle that come from the second cache, where the input of a layer lies while filters go by."""
SHARED = 0.8
"""Share of one filter's loads that remain when rows are whole vectors apart: taps of a column share the others."""
TLB_KIB = 256
"""What the pages of the first-level TLB cover."""
TLB_MISS = 1.5
"""How much longer lines take when the input of a block is larger than that."""
OVERLAP = 0.9
"""Share of the shorter of arithmetic and fetching that hides behind the longer."""
MEMORY_BYTES = 6.0
"""Bytes per cycle that one core reads from memory."""


def pixel_cycles(workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, isa: Isa) -> float:
    """Cycles of the `pixels` template, the packing of its input included."""
    layout = pixel_layout(workload, schedule)
    width = _width(isa, schedule.lanes)
    load = width.split - (width.split - 1) * _aligned_share(workload, shape, schedule)
    if shape.group == 1 and shape.taps > 1 and schedule.pitch % schedule.lanes == 0:
        load *= SHARED
    weights = shape.group / width.lanes if isa.by_element else shape.group
    block_rows = schedule.rows + (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]
    block_bytes = 4 * workload.in_channels * len(layout.phases) * block_rows * schedule.pitch
    miss = TLB_MISS if block_bytes > TLB_KIB * 1024 else 1.0
    cycles = 0.0
    for run in block_tiles(workload, schedule):
        vectors = len(run.starts)
        fmas = shape.group * vectors
        # An input that is used once is a memory operand of its FMA where the ISA has those.
        loads = 0 if shape.group == 1 and not isa.by_element else vectors
        # Where loads come in pairs, each tap has its own address, and entries of one tap share what a round takes.
        addresses = shape.taps if isa.paired > 1 else 0
        round_ = ENTRY / ENTRIES if isa.paired > 1 and shape.taps == 1 else ENTRY
        issue = (shape.taps * (fmas + (loads + weights) / isa.paired) + addresses + round_) / isa.issue
        entry = max(
            shape.taps * fmas / width.fma,
            shape.taps * (vectors * load + weights) / width.loads,
            shape.taps * FMA_LATENCY,
            issue,
        )
        if isa.by_element:
            # The small cores among these issue in order: there, nothing hides entirely.
            entry += (1 - OVERLAP) * issue
        stores = shape.groups * (shape.bodies * BODY + fmas * STORE)
        # Entries of one channel read the same lines: a tile and the rows that a kernel adds to it.
        lines = 4 * (vectors * schedule.lanes + (workload.kernel[0] - 1) * schedule.pitch)
        weights_bytes = 4 * shape.entries * (shape.taps * shape.group + 1)
        fetch = (_channels_read(workload, shape) * lines * miss + weights_bytes) / L2_BYTES
        compute = shape.entries * entry
        cycles += run.count * (max(compute, fetch) + (1 - OVERLAP) * min(compute, fetch) + stores)
    if schedule.pitch != workload.out_width:
        cycles += shape.groups * shape.group * schedule.rows * -(-workload.out_width // schedule.lanes) * STORE
    pack = 0.0 if layout.identity else layout.size / schedule.lanes * STORE
    return workload.batch * (-(-workload.out_height // schedule.rows) * cycles + pack)


def channel_cycles(workload: ConvWorkload, shape: TapShape, schedule: ChannelSchedule, isa: Isa) -> float:
    """Cycles of the `channels` template: its FMAs, or reading the weights from memory if that takes longer."""
    vectors = shape.group // schedule.lanes
    width = _width(isa, schedule.lanes)
    fma = schedule.images * vectors / width.fma
    tap = max(fma, (vectors + schedule.images) / width.loads, FMA_LATENCY / schedule.unroll)
    compute = shape.entries * (shape.taps * tap + ENTRY / isa.issue)
    memory = 4 * shape.entries * (shape.taps * shape.group + 1) / MEMORY_BYTES
    stores = shape.groups * (BODY + schedule.images * vectors * STORE)
    return -(-workload.batch // schedule.images) * (max(compute, memory) + stores)


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


def _aligned_share(workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule) -> float:
    """Share of the loads that start at a multiple of the vector's size."""
    if schedule.pitch % schedule.lanes:
        return 0.0
    if workload.kernel[1] == 1:
        return 1.0
    if schedule.align == 1:
        return 0.0
    # The centre column is aligned. Patterns keep the centre and half of their positions lie in its column.
    return 0.5 if shape.bodies > 1 else 1 / workload.kernel[1]
