"""Default schedules: for each encoding of a weight, the schedule that the analytic model likes best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pconvgen.schedules.cost import channel_cycles, pixel_cycles
from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule, Schedule
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.templates.planes import min_pitch, used_phases
from pconvgen.workload import ConvWorkload

CODE_CAP = 1024
"""FMAs that the bodies of one tile may unroll to: what stays in an instruction cache of 32 KiB."""

UNROLL = (1, 2, 4, 8)


@dataclass(frozen=True)
class Choice:
    """An encoding with its schedule.

    Attributes
    ----------
    candidate: how the weight is stored.
    max_group: filters per group at most; an argument of `encode`.
    schedule: how it is computed.
    cycles: what the analytic model predicts on one core.
    """

    candidate: Candidate
    max_group: int
    schedule: Schedule
    cycles: float


def rank(workload: ConvWorkload, candidates: Iterable[Candidate], isa: Isa, l2_kib: int) -> list[Choice]:
    """The best choice of every candidate, the fastest first."""
    best: dict[str, Choice] = {}
    for candidate in candidates:
        for choice in _choices(workload, candidate, isa, l2_kib):
            key = str(candidate)
            if key not in best or choice.cycles < best[key].cycles:
                best[key] = choice
    return sorted(best.values(), key=lambda choice: choice.cycles)


def is_single_pixel(workload: ConvWorkload) -> bool:
    """Whether the workload is a matrix product: the `channels` template's case."""
    return (workload.height, workload.width, workload.groups) == (1, 1, 1) and workload.kernel == (1, 1)


def _choices(workload: ConvWorkload, candidate: Candidate, isa: Isa, l2_kib: int) -> Iterator[Choice]:
    if is_single_pixel(workload):
        for max_group in (isa.widths[0].lanes * n for n in (1, 2, 4)):
            shape = candidate.shape(workload.out_channels, workload.groups, max_group)
            for channel in _channel_schedules(workload, shape, isa):
                yield Choice(candidate, max_group, channel, channel_cycles(workload, shape, channel, isa))
        return
    for max_group in (4, 8):
        shape = candidate.shape(workload.out_channels, workload.groups, max_group)
        for pixel in _pixel_schedules(workload, shape, isa, l2_kib):
            yield Choice(candidate, max_group, pixel, pixel_cycles(workload, shape, pixel, isa))


def _pixel_schedules(workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int) -> Iterator[PixelSchedule]:
    """Legal schedules: accumulators, inputs and weights fit into the registers, the code into the cap."""
    pitch = min_pitch(workload)
    rows = _rows(workload, pitch, l2_kib)
    pixels = (rows - 1) * pitch + workload.out_width
    for width in isa.widths:
        lanes = width.lanes
        while lanes > pixels:
            lanes //= 2
        aligned = -(-pitch // lanes) * lanes
        layouts = {(pitch, 1)}
        if workload.kernel[1] > 1 and lanes > 1 and not isa.by_element:
            layouts.add((aligned, lanes))
        limit = -(-pixels // lanes)
        for vectors in range(1, min(limit, isa.registers) + 1):
            if not _fits(shape, vectors, isa):
                break
            for row_pitch, align in sorted(layouts):
                yield PixelSchedule(lanes, vectors, row_pitch, align, rows)


def _fits(shape: TapShape, vectors: int, isa: Isa) -> bool:
    accumulators = shape.group * vectors
    if isa.by_element:
        resident = 2 + -(-shape.group // isa.widths[0].lanes)
    elif shape.group == 1:
        resident = 2
    else:
        resident = min(shape.group, vectors) + 1
    code = shape.bodies * shape.taps * accumulators
    return accumulators + resident <= isa.registers and (code <= CODE_CAP or vectors == 1)


def _rows(workload: ConvWorkload, pitch: int, l2_kib: int) -> int:
    """Output rows per block: all filters read a block's input, so half of the second cache should hold it."""
    bytes_per_row = 4 * workload.in_channels * len(used_phases(workload)) * pitch
    fit = max(1, l2_kib * 1024 // 2 // bytes_per_row)
    blocks = -(-workload.out_height // fit)
    return -(-workload.out_height // blocks)


def _channel_schedules(workload: ConvWorkload, shape: TapShape, isa: Isa) -> Iterator[ChannelSchedule]:
    lanes = isa.widths[0].lanes
    while shape.group % lanes:
        lanes //= 2
    vectors = shape.group // lanes
    for images in sorted({1, min(workload.batch, 2), min(workload.batch, 4)}):
        for unroll in UNROLL:
            if vectors * images * unroll + vectors + 1 <= isa.registers:
                yield ChannelSchedule(lanes, images, unroll)
