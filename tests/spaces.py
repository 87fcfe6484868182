"""The spaces of schedules that families have, for tests that look at all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pconvgen.schedules import ISAS
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import Candidate
from pconvgen.sparsity.structure import TapShape
from pconvgen.templates.family import DIRECT, Family
from pconvgen.values.core import Core
from pconvgen.values.planes import Places
from pconvgen.values.schedule import Schedule
from pconvgen.values.workload import ConvWorkload

SPACES: dict[str, Core] = {name: core for name, core in CORES.items() if name in (*ISAS, "avx512-zen4")}
"""One core for each instruction set, and one whose shorter vectors are as good as its longer ones: what is legal does
not depend on the other numbers."""


def schedules(
    workload: ConvWorkload,
    candidate: Candidate,
    core: Core,
    places: Places | None = None,
    families: Sequence[Family] = DIRECT,
) -> Iterator[tuple[int, TapShape, Schedule]]:
    """All legal schedules of one encoding: (max_group of the encoding, its sizes, schedule)."""
    for family in families:
        if family.applies(workload):
            for max_group, shape in family.encodings(workload, candidate, core):
                for schedule in family.price(workload, shape, core, places).schedules:
                    yield max_group, shape, schedule
