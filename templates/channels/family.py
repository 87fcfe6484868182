"""The family of sparse matrix-vector products with vectors along output channels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import Priced
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.sparsity.taps import TapEncoding
from pconvgen.templates.channels.cost import channel_cycles
from pconvgen.templates.channels.kernel import ChannelKernel
from pconvgen.templates.channels.space import channel_schedules
from pconvgen.templates.instance import CHUNKS, Instance, chunks_of, tap_arrays
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa
from pconvgen.values.planes import Places
from pconvgen.values.schedule import ChannelSchedule
from pconvgen.values.workload import ConvWorkload

VECTORS = (1, 2, 4)
"""Vectors of filters per group at most."""


class Channels:
    """See Family."""

    name = "channels"
    schedule = ChannelSchedule
    direct = True
    scattered = False

    def applies(self, workload: ConvWorkload) -> bool:
        """To products of matrices: linear layers, and convolutions of single pixels."""
        return workload.is_product

    def encodings(self, workload: ConvWorkload, candidate: Candidate, core: Core) -> Iterator[tuple[int, TapShape]]:
        """Of groups of whole vectors, without repetition."""
        lanes = core.lanes(workload.precision.arithmetic)
        return candidate.shapes(workload.out_channels, workload.groups, [lanes * n for n in VECTORS])

    def price(
        self, workload: ConvWorkload, shape: TapShape, core: Core, places: Places | None
    ) -> Priced[ChannelSchedule]:
        """Its tensors have no planes, so that layouts do not enter."""
        return _priced(workload, shape, core)

    def instantiate(
        self,
        workload: ConvWorkload,
        encoding: TapEncoding,
        schedule: ChannelSchedule,
        isa: Isa,
        places: Places | None,
        slots: NDArray[np.int64],
        first: tuple[int, int],
    ) -> Instance:
        """Offsets, values, indptr, order and chunks are the kernel's arrays."""
        chunks = chunks_of(encoding, CHUNKS)
        steps = np.diff(encoding.order, axis=1)
        kernel = ChannelKernel(
            workload=workload,
            schedule=schedule,
            isa=isa,
            group=encoding.group,
            groups=encoding.groups,
            bodies=tuple(tuple(channel for channel, _, _ in body) for body in encoding.bodies),
            consecutive=bool((steps == 1).all() and (encoding.order >= 0).all()),
            chunks=len(chunks) - 1,
        )
        return Instance(kernel, tap_arrays(workload, encoding, np.ascontiguousarray(encoding.entries[:, 0]), chunks))

    def describe(self, candidate: Candidate, schedule: ChannelSchedule) -> str:
        """The encoding."""
        return f"{self.name}: {candidate}"


@lru_cache(maxsize=4096)
def _priced(workload: ConvWorkload, shape: TapShape, core: Core) -> Priced[ChannelSchedule]:
    found = tuple(channel_schedules(workload, shape, core.isa))
    fixed = np.array([channel_cycles(workload, shape, schedule, core) for schedule in found], np.float64)
    none = np.zeros_like(fixed)
    return Priced(found, fixed, none, none)
