"""The family of Winograd convolutions, which compute dense weights with fewer multiplications."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import Priced, no_schedules
from pconvgen.sparsity import DENSE
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.sparsity.taps import TapEncoding
from pconvgen.templates.instance import Instance
from pconvgen.templates.winograd.cost import winograd_cycles
from pconvgen.templates.winograd.kernel import WinogradKernel
from pconvgen.templates.winograd.product import pack_weight
from pconvgen.templates.winograd.space import applies, winograd_schedules
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa
from pconvgen.values.planes import Places
from pconvgen.values.precision import FLOAT32
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload


class Winograd:
    """See Family. It spreads NaN over tiles, and computes every weight."""

    name = "winograd"
    schedule = WinogradSchedule
    direct = False
    scattered = False

    def applies(self, workload: ConvWorkload) -> bool:
        """To 3x3 convolutions in float32 that are neither strided, dilated nor grouped."""
        return workload.precision == FLOAT32 and applies(workload)

    def encodings(self, workload: ConvWorkload, candidate: Candidate, core: Core) -> Iterator[tuple[int, TapShape]]:
        """The dense one, as it is."""
        if candidate.structure == DENSE:
            yield 1, candidate.shape(workload.out_channels, workload.groups, 1)

    def price(
        self, workload: ConvWorkload, shape: TapShape, core: Core, places: Places | None
    ) -> Priced[WinogradSchedule]:
        """The input's padding, of all columns, has to lie around its rows."""
        assert places is not None
        if places.source.main is None or places.source.own_columns:
            return no_schedules()
        return _priced(workload, core)

    def instantiate(
        self,
        workload: ConvWorkload,
        encoding: TapEncoding,
        schedule: WinogradSchedule,
        isa: Isa,
        places: Places | None,
        slots: NDArray[np.int64],
        first: tuple[int, int],
    ) -> Instance:
        """The transformed weight is the kernel's only array."""
        assert places is not None
        ends = (int(slots[0]), *first)
        kernel = WinogradKernel(workload, schedule, isa, places.source, places.target, places.residual, ends)
        return Instance(kernel, (pack_weight(kernel.grid, encoding.decode(workload.weight_shape)),))

    def describe(self, candidate: Candidate, schedule: WinogradSchedule) -> str:
        """The tile."""
        return f"{self.name}: F({schedule.tile},3)"


@lru_cache(maxsize=4096)  # each layer is asked for with many targets
def _priced(workload: ConvWorkload, core: Core) -> Priced[WinogradSchedule]:
    found = tuple(winograd_schedules(workload, core.isa))
    prices = [winograd_cycles(workload, schedule, core) for schedule in found]
    return Priced(found, *np.array(prices, np.float64).reshape(-1, 3).T) if found else no_schedules()
