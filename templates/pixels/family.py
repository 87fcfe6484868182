"""The family of direct sparse convolutions with vectors along pixels: of every convolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import Priced, no_schedules
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.sparsity.taps import TapEncoding, by_channels
from pconvgen.templates.instance import CHUNKS, Instance, chunks_of, tap_arrays
from pconvgen.templates.pixels.cost import pixel_cycles
from pconvgen.templates.pixels.kernel import PixelKernel
from pconvgen.templates.pixels.space import pixel_schedules
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa
from pconvgen.values.planes import Places, PlaneLayout
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload

GROUPS = (4, 8)
"""Filters per group at most."""


class Pixels:
    """See Family."""

    name = "pixels"
    schedule = PixelSchedule
    direct = True
    scattered = True

    def applies(self, workload: ConvWorkload) -> bool:
        """To all but products of matrices."""
        return not workload.is_product

    def encodings(self, workload: ConvWorkload, candidate: Candidate, core: Core) -> Iterator[tuple[int, TapShape]]:
        """Of each size of groups, without repetition."""
        return candidate.shapes(workload.out_channels, workload.groups, GROUPS)

    def price(
        self, workload: ConvWorkload, shape: TapShape, core: Core, places: Places | None
    ) -> Priced[PixelSchedule]:
        """What is asked for with many targets is computed once."""
        assert places is not None
        return _priced(workload, shape, core, places.source, places.seamless)

    def instantiate(
        self,
        workload: ConvWorkload,
        encoding: TapEncoding,
        schedule: PixelSchedule,
        isa: Isa,
        places: Places | None,
        slots: NDArray[np.int64],
        first: tuple[int, int],
    ) -> Instance:
        """Offsets, values, indptr, order and chunks are the kernel's arrays."""
        assert places is not None
        source = places.source
        bodies = tuple(
            tuple(channel * source.channel + source.tap_offset(workload, row, column) for channel, row, column in body)
            for body in encoding.bodies
        )
        # Positions of a body count from those of the kernel's first one.
        origin = source.tap_offset(workload, 0, 0)
        bodies = tuple(tuple(tap - origin for tap in body) for body in bodies)
        # Many row blocks or images are tasks enough; otherwise threads share the filters.
        blocks = workload.batch * -(-workload.out_height // schedule.rows)
        chunks = chunks_of(encoding, 1 if blocks >= CHUNKS else CHUNKS)
        kernel = PixelKernel(
            workload=workload,
            schedule=schedule,
            isa=isa,
            source=source,
            target=places.target,
            residual=places.residual,
            slots=first,
            group=encoding.group,
            groups=encoding.groups,
            bodies=bodies,
            padded_groups=bool((encoding.order < 0).any()),
            chunks=len(chunks) - 1,
        )
        if schedule.channels:
            encoding = by_channels(encoding, schedule.channels, workload.in_channels)
        offsets = source.entry_offsets(workload, encoding.entries, slots)
        return Instance(kernel, tap_arrays(workload, encoding, offsets, chunks))

    def describe(self, candidate: Candidate, schedule: PixelSchedule) -> str:
        """The encoding."""
        return f"{self.name}: {candidate}"


@lru_cache(maxsize=8192)  # a large network has some thousand, each asked for with many targets
def _priced(
    workload: ConvWorkload, shape: TapShape, core: Core, source: PlaneLayout, seamless: bool
) -> Priced[PixelSchedule]:
    # Which schedules are legal does not depend on how many weights survive.
    found = _legal(workload, replace(shape, groups=1, entries=1), core, source, seamless)
    return pixel_cycles(workload, shape, found, core, source) if found else no_schedules()


@lru_cache(maxsize=8192)
def _legal(
    workload: ConvWorkload, shape: TapShape, core: Core, source: PlaneLayout, seamless: bool
) -> tuple[PixelSchedule, ...]:
    return tuple(pixel_schedules(workload, shape, core, source, seamless=seamless))
