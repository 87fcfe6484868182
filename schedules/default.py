"""Default schedules: for each encoding of a weight, the schedule that the analytic model likes best."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pconvgen.schedules.cost import TLB_KIB, channel_cycles, pixel_cycles
from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule, Schedule
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.templates.planes import min_pitch, used_phases
from pconvgen.workload import ConvWorkload

WEIGHTS = 16
"""Weights of one filter's entry that are in registers at a time where taps share inputs; more are loaded again."""

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
    best = []
    for candidate in candidates:
        choices = (
            Choice(candidate, max_group, schedule, _cycles(workload, shape, schedule, isa))
            for max_group, shape, schedule in schedules(workload, candidate, isa, l2_kib)
        )
        best.append(min(choices, key=lambda choice: choice.cycles))
    return sorted(best, key=lambda choice: choice.cycles)


def is_single_pixel(workload: ConvWorkload) -> bool:
    """Whether the workload is a matrix product: the `channels` template's case."""
    w = workload
    return (w.height, w.width, w.groups) == (1, 1, 1) and w.kernel == (1, 1) and not any(w.padding)


def schedules(
    workload: ConvWorkload, candidate: Candidate, isa: Isa, l2_kib: int
) -> Iterator[tuple[int, TapShape, Schedule]]:
    """All legal schedules of one encoding: (max_group of the encoding, its sizes, schedule)."""
    if is_single_pixel(workload):
        for max_group, shape in _shapes(workload, candidate, [isa.widths[0].lanes * n for n in (1, 2, 4)]):
            for channel in _channel_schedules(workload, shape, isa):
                yield max_group, shape, channel
        return
    for max_group, shape in _shapes(workload, candidate, [4, 8]):
        for pixel in _pixel_schedules(workload, shape, isa, l2_kib):
            yield max_group, shape, pixel


def _cycles(workload: ConvWorkload, shape: TapShape, schedule: Schedule, isa: Isa) -> float:
    if isinstance(schedule, ChannelSchedule):
        return channel_cycles(workload, shape, schedule, isa)
    return pixel_cycles(workload, shape, schedule, isa)


def _shapes(workload: ConvWorkload, candidate: Candidate, sizes: list[int]) -> Iterator[tuple[int, TapShape]]:
    """The encodings' sizes for each largest group, without repetition."""
    seen: set[TapShape] = set()
    for max_group in sizes:
        shape = candidate.shape(workload.out_channels, workload.groups, max_group)
        if shape not in seen:
            seen.add(shape)
            yield max_group, shape


def _pixel_schedules(workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int) -> Iterator[PixelSchedule]:
    """Legal schedules: accumulators, inputs and weights fit into the registers, the code into the cap."""
    pitch = min_pitch(workload)
    most = {_rows(workload, pitch, kib) for kib in (l2_kib * 3 // 4, min(TLB_KIB, l2_kib // 2))}
    # The last block overlaps the one before it unless rows divide.
    options = most | {max(n for n in range(1, rows + 1) if workload.out_height % n == 0) for rows in most}
    for rows, width in itertools.product(sorted(options), isa.widths):
        pixels = (rows - 1) * pitch + workload.out_width
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
        # Two inputs, and the weights of a tap or, where taps share inputs, of an entry.
        weights = shape.group if shape.group > 1 else min(shape.taps, WEIGHTS)
        # Of many weights LLVM loads the next ones early.
        ahead = 2 if shape.taps > 4 else 0
        resident = 2 + -(-weights // isa.widths[0].lanes) + ahead
    elif shape.group == 1 and shape.taps > 1:
        # Taps of a column share inputs; kept in registers they are worth more than more accumulators (measured).
        resident = isa.registers // 2 if shape.taps <= 4 else isa.registers * 5 // 8
        if shape.taps > 6:
            resident = max(resident, isa.registers - 10)  # 3x3 depthwise on 28x28: 26 us with 10, 32 with 12
    elif shape.group == 1:
        resident = 2
    else:
        resident = min(shape.group, vectors) + 1
    code = shape.bodies * shape.taps * accumulators
    return accumulators + resident <= isa.registers and (code <= isa.code or vectors == 1)


def _rows(workload: ConvWorkload, pitch: int, kib: int) -> int:
    """Output rows per block, whose input, which all filters read, is to fit into `kib`."""
    bytes_per_row = 4 * workload.in_channels * len(used_phases(workload)) * pitch
    halo = (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]
    fit = max(1, kib * 1024 // bytes_per_row - halo)
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
