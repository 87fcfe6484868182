"""Families of kernels: each computes some layers, has a space of schedules, and a formula for what they cost.

A family is a folder with one object and one row of FAMILIES: choosing, instantiating, tuning, learning, reports and the
random tests go through the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pconvgen.schedules.roofline import Priced
from pconvgen.sparsity.structure import Candidate, TapShape
from pconvgen.sparsity.taps import TapEncoding
from pconvgen.templates.channels.family import Channels
from pconvgen.templates.instance import Instance
from pconvgen.templates.pixels.family import Pixels
from pconvgen.templates.winograd.family import Winograd
from pconvgen.values.core import Core
from pconvgen.values.isa import Isa
from pconvgen.values.planes import Places
from pconvgen.values.schedule import Schedule
from pconvgen.values.workload import ConvWorkload


class Family(Protocol):
    """Kernels that share a template and a space of schedules. Instances are stateless rows of FAMILIES.

    Attributes
    ----------
    name: key of FAMILIES; records and learned models know it by this.
    direct: whether an output is made of the weights that are stored, each multiplied by its input, and of nothing else:
        no zero is computed that is not stored, and NaN reaches no output but those whose windows hold it.
    scattered: whether the input's channels may lie anywhere, not only side by side.
    """

    name: str
    direct: bool
    scattered: bool

    @property
    def schedule(self) -> type[Schedule]:
        """The type of its schedules, which no other family has."""

    def applies(self, workload: ConvWorkload) -> bool:
        """Whether it computes such layers."""

    def encodings(self, workload: ConvWorkload, candidate: Candidate, core: Core) -> Iterator[tuple[int, TapShape]]:
        """(largest group, sizes) of the encodings of a candidate that it reads; none where it does not."""

    def price(self, workload: ConvWorkload, shape: TapShape, core: Core, places: Places | None) -> Priced[Any]:
        """The legal schedules of an encoding of that shape with what they take; `places` as in `instantiate`."""

    def instantiate(
        self,
        workload: ConvWorkload,
        encoding: TapEncoding,
        schedule: Any,
        isa: Isa,
        places: Places | None,
        slots: NDArray[np.int64],
        first: tuple[int, int],
    ) -> Instance:
        """The kernel with its arrays; see `instantiate` below."""

    def describe(self, candidate: Candidate, schedule: Any) -> str:
        """The encoding and what matters of the schedule, in a few words."""


_ROWS: tuple[Family, ...] = (
    Pixels(),
    Channels(),
    Winograd(),
)
FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
"""All families by name. A new family is a new row here; the tests iterate over the table."""

DIRECT = tuple(family for family in FAMILIES.values() if family.direct)
"""Those that compute what is stored and nothing else."""


def family_of(schedule: Schedule) -> Family:
    """The family that a schedule is of."""
    return next(family for family in FAMILIES.values() if isinstance(schedule, family.schedule))


def parameters() -> tuple[str, ...]:
    """The names of all schedules' values, each once."""
    return tuple(dict.fromkeys(field.name for family in FAMILIES.values() for field in fields(family.schedule)))


def instantiate(
    workload: ConvWorkload,
    encoding: TapEncoding,
    schedule: Schedule,
    isa: Isa,
    places: Places | None = None,
    *,
    slots: NDArray[np.int64] | None = None,
    first: tuple[int, int] = (0, 0),
) -> Instance:
    """The kernel of `workload` for weights in `encoding`, with its arrays.

    Parameters
    ----------
    places: where input, output and residual lie; None for products of matrices.
    slots: int64 [in_channels], the places of the input's channels among those of its layout; None for the first ones.
        Bodies of several channels, and families that are not `scattered`, need neighbours.
    first: places of the first channels of output and residual.
    """
    slots = np.arange(workload.in_channels) if slots is None else slots
    return family_of(schedule).instantiate(workload, encoding, schedule, isa, places, slots, first)
