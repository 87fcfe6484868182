"""Default schedules: for each encoding of a weight, the schedule that the analytic model likes best."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

from pconvgen.schedules.cost import TLB_KIB, channel_cycles, pixel_cycles, tile_channel_bytes
from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import ChannelSchedule, PixelSchedule, Schedule
from pconvgen.schedules.winograd import winograd_cycles, winograd_schedules
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.templates.pixels import pixel_layout
from pconvgen.templates.planes import min_pitch, used_phases
from pconvgen.workload import ConvWorkload

CODE_CAP = 1024
"""FMAs that the bodies of one tile may unroll to: 8 KiB of instructions, a quarter of the instruction cache."""

PART_KIB = 36
"""What a tile's input may take in one part of the input channels; measured, a little more than the first cache."""

WEIGHTS = 16
"""Weights of one filter's entry that are in registers at a time where taps share inputs; more are loaded again."""

TILE_CHOICES = 3
"""How many sizes of tiles that run across rows are tried, from the largest that fits the registers."""

FULL = 0.99
"""Share of the weights of a layer from which it is not pruned: it may be stored as four times as many for Winograd."""

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
    """The best choice of every candidate, the fastest first; where nothing is pruned, also the best of Winograd's."""
    found = list(candidates)
    best = []
    for candidate in found:
        choices = (
            Choice(candidate, max_group, schedule, _cycles(workload, shape, schedule, isa, l2_kib))
            for max_group, shape, schedule in schedules(workload, candidate, isa, l2_kib)
        )
        best.append(min(choices, key=lambda choice: choice.cycles))
        if _is_full(workload, candidate, found):
            winograd = (
                Choice(candidate, 1, schedule, winograd_cycles(workload, schedule, isa, l2_kib))
                for schedule in winograd_schedules(workload, isa)
            )
            best.extend(sorted(winograd, key=lambda choice: choice.cycles)[:1])
    return sorted(best, key=lambda choice: choice.cycles)


def _is_full(workload: ConvWorkload, candidate: Candidate, found: list[Candidate]) -> bool:
    """Whether a candidate stores all weights and there is nothing to gain from zeros."""
    full = candidate.structure == "dense" and candidate.stored == prod(workload.weight_shape)
    return full and (len(found) == 1 or candidate.fill >= FULL)


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


def _cycles(workload: ConvWorkload, shape: TapShape, schedule: Schedule, isa: Isa, l2_kib: int) -> float:
    if isinstance(schedule, ChannelSchedule):
        return channel_cycles(workload, shape, schedule, isa)
    return pixel_cycles(workload, shape, schedule, isa, l2_kib)


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
    most = max((n for n in range(1, isa.registers) if _fits(shape, n, isa)), default=1)
    for width, (pitch, aligned, own_columns) in itertools.product(isa.widths, _layouts(workload, isa)):
        row_pitch = -(-pitch // width.lanes) * width.lanes if aligned else pitch
        row = 4 * workload.in_channels * len(used_phases(workload, own_columns=own_columns)) * row_pitch
        for rows in _rows(workload, row, l2_kib):
            prefetch = rows < workload.out_height and workload.out_height * row > l2_kib * 1024
            across = row_pitch == workload.out_width
            lanes = width.lanes
            while lanes // 2 >= max(workload.out_width * (rows if across else 1), isa.widths[-1].lanes):
                lanes //= 2
            align = lanes if aligned or own_columns else 1
            for height, vectors in _tiles(workload, shape, isa, rows, lanes, most, across=across):
                tile = PixelSchedule(
                    lanes,
                    vectors,
                    height,
                    row_pitch,
                    align,
                    rows,
                    own_columns,
                    filters_inside=False,
                    channels=0,
                    prefetch=prefetch,
                )
                if prefetch and pixel_layout(workload, tile).identity:
                    tile = replace(tile, prefetch=False)  # its blocks do not lie together
                yield tile
                for channels in _channels(workload, shape, tile, isa):
                    yield replace(tile, filters_inside=True, channels=channels)


def _channels(workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, isa: Isa) -> Iterator[int]:
    """Sizes of the parts of the input channels when a tile is computed for all filters at a time."""
    yield 0
    # With many bodies, or blocks of filters that load an input once for all, there is too little in a part.
    if not shape.group == shape.taps == workload.groups == 1:
        return
    # Tiles narrower than a row touch few sets of the cache: pitches are often powers of two.
    row = schedule.lanes * (schedule.vectors // schedule.height) if schedule.height else schedule.pitch
    share = min(1, row / schedule.pitch)
    channels = int(share * PART_KIB * 1024 / tile_channel_bytes(workload, schedule, isa))
    if 0 < channels < workload.in_channels:
        yield channels


def _tiles(
    workload: ConvWorkload, shape: TapShape, isa: Isa, rows: int, lanes: int, most: int, *, across: bool
) -> Iterator[tuple[int, int]]:
    """(height, vectors) of tiles of at most `most` vectors, the sizes that cut a block evenly."""
    if across:
        total = -(-rows * workload.out_width // lanes)
        fewest = -(-total // most)
        yield from sorted({(0, -(-total // tiles)) for tiles in range(fewest, min(fewest + TILE_CHOICES, total + 1))})
        if shape.group > 1:
            return
    row = -(-workload.out_width // lanes)
    for parts in range(-(-row // most), row + 1):
        vectors = -(-row // parts)
        for height in {1, min(rows, most // vectors)} if _may_be_tall(shape, isa) else {1}:
            yield height, height * vectors


def _may_be_tall(shape: TapShape, isa: Isa) -> bool:
    """Whether LLVM keeps a tile of several rows in registers."""
    if shape.taps == 1:
        return True
    if shape.group > 1:
        return False  # it would keep the inputs that taps share, too
    return isa.memory_operands or shape.columns < shape.taps <= WEIGHTS


def _layouts(workload: ConvWorkload, isa: Isa) -> Iterator[tuple[int, bool, bool]]:
    """(smallest pitch, whether it is rounded up to whole vectors, whether columns have their own planes)."""
    pitch = min_pitch(workload)
    yield pitch, False, False
    if workload.kernel[1] == 1:
        return
    if not isa.by_element:
        yield pitch, True, False
    for aligned in (False, True):
        yield workload.out_width, aligned, True


def _fits(shape: TapShape, vectors: int, isa: Isa) -> bool:
    accumulators = shape.group * vectors
    if isa.by_element:
        # Two inputs, and the weights of a tap or, where taps share inputs, of an entry.
        weights = shape.group if shape.group > 1 else min(shape.taps, WEIGHTS)
        # Of many weights LLVM loads the next ones early.
        ahead = 2 if shape.taps > 4 else 0
        resident = 2 + -(-weights // isa.widths[0].lanes) + ahead
    elif shape.group == 1 and shape.taps > 1 and not isa.memory_operands:
        # Inputs that LLVM loads ahead have no other place; 32-bit ARM code spills above this.
        resident = isa.registers * 5 // 8 if shape.taps <= 4 else isa.registers - 3
    elif shape.group == 1:
        # The weights of a body, and inputs; of more weights the rest comes from memory with every FMA.
        resident = min(shape.taps, 9) + 2
    else:
        # Without memory operands LLVM loads the inputs and weights of the next tap early.
        ahead = 2 if shape.taps > 1 and not isa.memory_operands else 0
        resident = min(shape.group, vectors) + 1 + ahead
    code = shape.bodies * shape.taps * accumulators
    return accumulators + resident <= isa.registers and (code <= CODE_CAP or vectors == 1)


def _rows(workload: ConvWorkload, bytes_per_row: int, l2_kib: int) -> list[int]:
    """Output rows per block, whose input, which all filters read, is to fit into a cache or the TLB."""
    halo = (workload.kernel[0] - 1) * workload.dilation[0] // workload.stride[0]
    options = set()
    for kib in (l2_kib * 3 // 4, min(TLB_KIB, l2_kib // 2)):
        fit = min(workload.out_height, max(1, kib * 1024 // bytes_per_row - halo))
        options.add(-(-workload.out_height // -(-workload.out_height // fit)))
        # The last block overlaps the one before it unless rows divide.
        options.add(max(rows for rows in range(1, fit + 1) if workload.out_height % rows == 0))
    return sorted(options)


def _channel_schedules(workload: ConvWorkload, shape: TapShape, isa: Isa) -> Iterator[ChannelSchedule]:
    lanes = isa.widths[0].lanes
    while shape.group % lanes:
        lanes //= 2
    vectors = shape.group // lanes
    for images in sorted({1, min(workload.batch, 2), min(workload.batch, 4)}):
        for unroll in UNROLL:
            if vectors * images * unroll + vectors + 1 <= isa.registers:
                yield ChannelSchedule(lanes, images, unroll)
