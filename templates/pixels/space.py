"""The space of schedules of the `pixels` template: what is legal on a core, and worth looking at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.layout.tiles import even_parts
from pconvgen.templates.pixels.cost import halo, tile_channel_bytes
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload

WEIGHTS = 16
"""Weights of one filter's entry that are in registers at a time where taps share inputs; more are loaded again."""

TILE_CHOICES = 3
"""How many sizes of tiles that run across rows are tried, from the largest that fits the registers."""


def pixel_schedules(
    workload: ConvWorkload, shape: TapShape, core: Core, source: PlaneLayout, *, seamless: bool
) -> Iterator[PixelSchedule]:
    """Legal schedules: accumulators, inputs and weights fit into the registers, the code into the cap.

    `seamless` says whether tiles may run across rows of the output, see Places.
    """
    isa, lanes_of_widths = core.isa, core.isa.lanes(workload.precision.arithmetic)
    native = lanes_of_widths[0]
    most = max((n for n in range(1, isa.registers) if _fits(shape, n, native, core)), default=1)
    row = workload.precision.bytes * workload.in_channels * len(source.phases) * source.pitch
    contiguous = source.row_stride == workload.out_width and source.step(workload) == (1, 1)
    across = contiguous and seamless
    tall = _may_be_tall(shape, isa)
    for width, rows in itertools.product(lanes_of_widths, _rows(workload, row, core)):
        prefetch = source.interleaved and rows < workload.out_height and workload.out_height * row > core.l2_kib * 1024
        lanes = width
        while lanes // 2 >= max(workload.out_width * (rows if across else 1), lanes_of_widths[-1]):
            lanes //= 2
        for height, vectors in _tiles(workload, shape, rows, lanes, most, across=across, tall=tall):
            tile = PixelSchedule(lanes, vectors, height, rows, filters_inside=False, channels=0, prefetch=prefetch)
            yield tile
            for channels in _channels(workload, shape, tile, core, source):
                yield replace(tile, filters_inside=True, channels=channels)


def _channels(
    workload: ConvWorkload, shape: TapShape, schedule: PixelSchedule, core: Core, source: PlaneLayout
) -> Iterator[int]:
    """Sizes of the parts of the input channels when a tile is computed for all filters at a time."""
    yield 0
    # With many bodies, or blocks of filters that load an input once for all, there is too little in a part.
    if not shape.group == shape.taps == workload.groups == 1:
        return
    # Tiles narrower than a row touch few sets of the cache: pitches are often powers of two.
    row = schedule.lanes * (schedule.vectors // schedule.height) if schedule.height else source.pitch
    share = min(1, row / source.pitch)
    channels = int(share * core.costs.part * core.l1_kib * 1024 / tile_channel_bytes(workload, schedule, core, source))
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


def _fits(shape: TapShape, vectors: int, native: int, core: Core) -> bool:
    isa = core.isa
    accumulators = shape.group * vectors
    if isa.lane_indexed_fma:
        # Two inputs, and the weights of a tap or, where taps share inputs, of an entry.
        weights = shape.group if shape.group > 1 else min(shape.taps, WEIGHTS)
        # Of many weights LLVM loads the next ones early, and of wide vectors the first tap's inputs.
        wide = native > 4 and shape.group == 1
        ahead = 10 if wide and 1 < shape.taps <= 4 else 2 if wide or shape.taps > 4 else 0
        resident = 2 + -(-weights // native) + ahead
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
    return accumulators + resident <= isa.registers and (code <= core.costs.code or vectors == 1)


def _rows(workload: ConvWorkload, bytes_per_row: int, core: Core) -> list[int]:
    """Output rows per block, whose input, which all filters read, is to fit into a cache or the TLB."""
    options = set()
    for kib in (core.l2_kib * 3 // 4, min(core.costs.tlb_kib, core.l2_kib // 2)):
        fit = min(workload.out_height, max(1, kib * 1024 // bytes_per_row - halo(workload)))
        options.add(-(-workload.out_height // -(-workload.out_height // fit)))
        # The last block overlaps the one before it unless rows divide.
        options.add(_largest_divisor(workload.out_height, fit))
    return sorted(options)
