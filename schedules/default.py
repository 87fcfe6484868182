"""Default schedules: for each encoding of a weight, the schedule that the analytic model likes best."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.cost import (
    TLB_KIB,
    channel_cycles,
    halo,
    pack_cycles,
    pixel_cycles,
    store_cycles,
    tile_channel_bytes,
    zeros_cycles,
)
from pconvgen.schedules.winograd import best_winograd, can_place, priced_winograd
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.templates.planes import Places, PlaneLayout, plain_layout, plane_layout
from pconvgen.templates.tiles import even_parts
from pconvgen.values.isa import Isa
from pconvgen.values.precision import FLOAT32
from pconvgen.values.schedule import ChannelSchedule, PixelSchedule, Schedule
from pconvgen.values.workload import ConvWorkload

CODE_CAP = 1024
"""FMAs that the bodies of one tile may unroll to: 8 KiB of instructions, a quarter of the instruction cache."""

PART_KIB = 36
"""What a tile's input may take in one part of the input channels; measured, a little more than the first cache."""

WEIGHTS = 16
"""Weights of one filter's entry that are in registers at a time where taps share inputs; more are loaded again."""

TILE_CHOICES = 3
"""How many sizes of tiles that run across rows are tried, from the largest that fits the registers."""

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
    places: where the layer's tensors lie; None for a product of matrices.
    """

    candidate: Candidate
    max_group: int
    schedule: Schedule
    cycles: float
    places: Places | None


def rank(
    workload: ConvWorkload,
    candidates: Iterable[Candidate],
    isa: Isa,
    l2_kib: int,
    places: Places | None = None,
    *,
    winograd: bool = True,
) -> list[Choice]:
    """The best choice of every candidate, the fastest first; of the dense one also by Winograd, where that applies,
    which is in float32 only.

    Without `places`, the input is packed for this layer, which counts, and the output is NCHW; a product of matrices
    has none.
    """
    options: list[tuple[float, Places | None]] = [(0.0, places)]
    if places is None and not is_single_pixel(workload):
        options = list(_alone(workload, isa))
    best = []
    for candidate in candidates:
        choices = [
            Choice(candidate, max_group, fastest[1], pack + fastest[0], where)
            for max_group, shape in _shapes(workload, candidate, isa)
            for pack, where in options
            for fastest in [best_schedule(workload, shape, isa, l2_kib, where)]
            if fastest is not None
        ]
        best.append(min(choices, key=lambda choice: choice.cycles))
        if winograd and candidate.structure == "dense" and workload.precision == FLOAT32:
            best += _winograd(workload, candidate, isa, l2_kib, options)
    return sorted(best, key=lambda choice: choice.cycles)


def all_choices(
    workload: ConvWorkload,
    candidates: Iterable[Candidate],
    isa: Isa,
    l2_kib: int,
    places: Places | None,
    *,
    winograd: bool = True,
) -> Iterator[Choice]:
    """Every legal choice in these layouts, in no order; None as `places` is for products of matrices only."""
    for candidate in candidates:
        for max_group, shape in _shapes(workload, candidate, isa):
            priced = _priced(workload, shape, isa, l2_kib, places)
            for schedule, cycles in zip(priced.schedules, priced.cycles(places).tolist(), strict=True):
                yield Choice(candidate, max_group, schedule, cycles, places)
        dense = candidate.structure == "dense" and workload.precision == FLOAT32
        if winograd and dense and places is not None and can_place(places):
            for fast, price in priced_winograd(workload, isa, l2_kib):
                yield Choice(candidate, 1, fast, price.to(places.target), places)


def _winograd(
    workload: ConvWorkload, candidate: Candidate, isa: Isa, l2_kib: int, options: list[tuple[float, Places | None]]
) -> list[Choice]:
    """The best choice of Winograd's template, if there is one."""
    found = [
        Choice(candidate, 1, best[1], pack + best[0], where)
        for pack, where in options
        if where is not None and can_place(where)
        for best in [best_winograd(workload, isa, l2_kib, where.target)]
        if best is not None
    ]
    return [min(found, key=lambda choice: choice.cycles)] if found else []


def _alone(workload: ConvWorkload, isa: Isa) -> Iterator[tuple[float, Places]]:
    """(cycles to pack the input, layouts) of a layer by itself."""
    target = plain_layout(workload.out_channels, workload.out_height, workload.out_width)
    residual = target if workload.epilogue.residual else None
    for source in layouts(workload, isa):
        pack = 0.0 if source.plain else workload.batch * pack_cycles(source, isa.widths[0].lanes)
        yield pack, Places(source, target, residual)


@dataclass(frozen=True, eq=False)
class _Priced:
    """The legal schedules of an encoding that reads from one layout, with what each takes by where the output lies.

    Attributes
    ----------
    schedules: in no order.
    fixed, stores, zeros: float64 [schedules], see KernelCycles.
    """

    schedules: tuple[Schedule, ...]
    fixed: NDArray[np.float64]
    stores: NDArray[np.float64]
    zeros: NDArray[np.float64]

    def cycles(self, places: Places | None) -> NDArray[np.float64]:
        """float64 [schedules]."""
        if places is None:
            return self.fixed
        return self.fixed + self.stores * store_cycles(places.target) + self.zeros * zeros_cycles(places.target)


@lru_cache(maxsize=8192)  # a large network has some thousand, each asked for with many targets
def _priced_pixels(
    workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int, source: PlaneLayout, seamless: bool
) -> _Priced:
    # Which schedules are legal does not depend on how many weights survive.
    found = _legal_pixels(workload, replace(shape, groups=1, entries=1), isa, l2_kib, source, seamless)
    if not found:
        none = np.zeros(0)
        return _Priced(found, none, none, none)
    cycles = pixel_cycles(workload, shape, found, isa, l2_kib, source)
    return _Priced(found, cycles.fixed, cycles.stores, cycles.zeros)


@lru_cache(maxsize=8192)
def _legal_pixels(
    workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int, source: PlaneLayout, seamless: bool
) -> tuple[PixelSchedule, ...]:
    return tuple(_pixel_schedules(workload, shape, isa, l2_kib, source, seamless=seamless))


@lru_cache(maxsize=4096)
def _priced_channels(workload: ConvWorkload, shape: TapShape, isa: Isa) -> _Priced:
    found = tuple(_channel_schedules(workload, shape, isa))
    fixed = np.array([channel_cycles(workload, shape, schedule, isa) for schedule in found], np.float64)
    none = np.zeros_like(fixed)
    return _Priced(found, fixed, none, none)


def _priced(workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int, places: Places | None) -> _Priced:
    if places is None:
        return _priced_channels(workload, shape, isa)
    return _priced_pixels(workload, shape, isa, l2_kib, places.source, places.seamless)


def best_schedule(
    workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int, places: Places | None
) -> tuple[float, Schedule] | None:
    """(cycles, schedule) of the fastest legal schedule of an encoding of that shape; None when none is legal."""
    priced = _priced(workload, shape, isa, l2_kib, places)
    if not priced.schedules:
        return None
    cycles = priced.cycles(places)
    best = int(cycles.argmin())
    return float(cycles[best]), priced.schedules[best]


def layouts(workload: ConvWorkload, isa: Isa) -> tuple[PlaneLayout, ...]:
    """Layouts of the input among which the fastest is worth looking for; NCHW, where it is one of them, is the last."""
    plain = plain_layout(workload.in_channels, workload.height, workload.width)
    made = _made_layouts(workload, isa, plain)
    return (*made, plain) if plain.readable(workload) else made


def _made_layouts(workload: ConvWorkload, isa: Isa, plain: PlaneLayout) -> tuple[PlaneLayout, ...]:
    """Layouts that are made for the reader."""
    slack = 2 * isa.widths[0].lanes
    found = {}
    if workload.kernel == (1, 1) and not any(workload.padding):
        found[replace(plain, slack=slack * workload.stride[1])] = None
        if workload.stride != (1, 1):
            # Only what is read; other readers want every element, which is then skipped as it is loaded.
            thin = plane_layout(
                workload, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=slack
            )
            found[thin] = None
        return tuple(found)
    # Paired loads reach few rows that lie far apart: code for them spills.
    orders = (False,) if isa.paired > 1 else (False, True)
    for interleaved in orders:
        found[
            plane_layout(workload, align=1, aligned_rows=False, own_columns=False, interleaved=interleaved, slack=slack)
        ] = None
    if workload.stride != (1, 1) and not isa.by_element:
        # For readers that share it with others: strides are taken as the input is loaded. NEON code for that spills.
        whole = replace(workload, stride=(1, 1))
        found[
            plane_layout(whole, align=1, aligned_rows=False, own_columns=False, interleaved=False, slack=2 * slack)
        ] = None
    for lanes in sorted({width.lanes for width in isa.widths}) if workload.kernel[1] > 1 else ():
        for own_columns, aligned_rows, interleaved in (
            (False, True, False),
            (False, True, True),
            (True, False, False),
            (True, True, False),
        ):
            # With loads of whole vectors in pairs, alignment of the rows gives nothing.
            if interleaved not in orders or (isa.by_element and aligned_rows and not own_columns):
                continue
            layout = plane_layout(
                workload,
                align=lanes,
                aligned_rows=aligned_rows,
                own_columns=own_columns,
                interleaved=interleaved,
                slack=slack,
            )
            found[layout] = None
    return tuple(found)


def is_single_pixel(workload: ConvWorkload) -> bool:
    """Whether the workload is a matrix product: the `channels` template's case."""
    w = workload
    return (w.height, w.width, w.groups) == (1, 1, 1) and w.kernel == (1, 1) and not any(w.padding)


def schedules(
    workload: ConvWorkload, candidate: Candidate, isa: Isa, l2_kib: int, places: Places | None = None
) -> Iterator[tuple[int, TapShape, Schedule]]:
    """All legal schedules of one encoding: (max_group of the encoding, its sizes, schedule)."""
    for max_group, shape in _shapes(workload, candidate, isa):
        for schedule in _priced(workload, shape, isa, l2_kib, places).schedules:
            yield max_group, shape, schedule


def _shapes(workload: ConvWorkload, candidate: Candidate, isa: Isa) -> Iterator[tuple[int, TapShape]]:
    """The encodings' sizes for each largest group, without repetition."""
    seen: set[TapShape] = set()
    for max_group in [isa.widths[0].lanes * n for n in (1, 2, 4)] if is_single_pixel(workload) else [4, 8]:
        shape = candidate.shape(workload.out_channels, workload.groups, max_group)
        if shape not in seen:
            seen.add(shape)
            yield max_group, shape


def _pixel_schedules(
    workload: ConvWorkload, shape: TapShape, isa: Isa, l2_kib: int, source: PlaneLayout, *, seamless: bool
) -> Iterator[PixelSchedule]:
    """Legal schedules: accumulators, inputs and weights fit into the registers, the code into the cap."""
    most = max((n for n in range(1, isa.registers) if _fits(shape, n, isa)), default=1)
    row = workload.precision.bytes * workload.in_channels * len(source.phases) * source.pitch
    contiguous = source.line == workload.out_width and source.step(workload) == (1, 1)
    across = contiguous and seamless
    tall = _may_be_tall(shape, isa)
    for width, rows in itertools.product(isa.widths, _rows(workload, row, l2_kib)):
        prefetch = source.interleaved and rows < workload.out_height and workload.out_height * row > l2_kib * 1024
        lanes = width.lanes
        while lanes // 2 >= max(workload.out_width * (rows if across else 1), isa.widths[-1].lanes):
            lanes //= 2
        for height, vectors in _tiles(workload, shape, rows, lanes, most, across=across, tall=tall):
            tile = PixelSchedule(lanes, vectors, height, rows, filters_inside=False, channels=0, prefetch=prefetch)
            yield tile
            for channels in _channels(workload, shape, tile, isa, source):
                yield replace(tile, filters_inside=True, channels=channels)


def _channels(
    workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, isa: Isa, source: PlaneLayout
) -> Iterator[int]:
    """Sizes of the parts of the input channels when a tile is computed for all filters at a time."""
    yield 0
    # With many bodies, or blocks of filters that load an input once for all, there is too little in a part.
    if not shape.group == shape.taps == workload.groups == 1:
        return
    # Tiles narrower than a row touch few sets of the cache: pitches are often powers of two.
    row = schedule.lanes * (schedule.vectors // schedule.height) if schedule.height else source.pitch
    share = min(1, row / source.pitch)
    channels = int(share * PART_KIB * 1024 / tile_channel_bytes(workload, schedule, isa, source))
    if 0 < channels < workload.in_channels:
        yield channels


def _tiles(
    workload: ConvWorkload, shape: TapShape, rows: int, lanes: int, most: int, *, across: bool, tall: bool
) -> Iterator[tuple[int, int]]:
    """(height, vectors) of tiles of at most `most` vectors, the sizes that cut a block evenly."""
    if across:
        total = -(-rows * workload.out_width // lanes)
        fewest = -(-total // most)
        yield from sorted({(0, -(-total // tiles)) for tiles in range(fewest, min(fewest + TILE_CHOICES, total + 1))})
        if shape.group > 1:
            return
    row = -(-workload.out_width // lanes)
    for vectors in reversed(even_parts(row, most)):
        for height in {1, min(rows, most // vectors)} if tall else {1}:
            yield height, height * vectors


@lru_cache(maxsize=4096)
def _largest_divisor(number: int, most: int) -> int:
    return next(size for size in range(most, 0, -1) if number % size == 0)


def _may_be_tall(shape: TapShape, isa: Isa) -> bool:
    """Whether LLVM keeps a tile of several rows in registers."""
    if shape.taps == 1:
        return True
    if shape.group > 1:
        return False  # it would keep the inputs that taps share, too
    return isa.memory_operands or shape.columns < shape.taps <= WEIGHTS


def _fits(shape: TapShape, vectors: int, isa: Isa) -> bool:
    accumulators = shape.group * vectors
    if isa.by_element:
        # Two inputs, and the weights of a tap or, where taps share inputs, of an entry.
        weights = shape.group if shape.group > 1 else min(shape.taps, WEIGHTS)
        # Of many weights LLVM loads the next ones early, and of wide vectors the first tap's inputs.
        wide = isa.widths[0].lanes > 4 and shape.group == 1
        ahead = 10 if wide and 1 < shape.taps <= 4 else 2 if wide or shape.taps > 4 else 0
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
    options = set()
    for kib in (l2_kib * 3 // 4, min(TLB_KIB, l2_kib // 2)):
        fit = min(workload.out_height, max(1, kib * 1024 // bytes_per_row - halo(workload)))
        options.add(-(-workload.out_height // -(-workload.out_height // fit)))
        # The last block overlaps the one before it unless rows divide.
        options.add(_largest_divisor(workload.out_height, fit))
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
