"""How one layer may be computed: an encoding of its weight with a schedule, or two of them."""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.sparsity.split import Split
from pconvgen.sparsity.structure import Candidate
from pconvgen.templates.family import Family, family_of
from pconvgen.values.planes import Places
from pconvgen.values.schedule import Schedule
from pconvgen.values.workload import ConvWorkload


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

    @property
    def family(self) -> Family:
        """Of its kernel."""
        return family_of(self.schedule)

    def __str__(self) -> str:
        return self.family.describe(self.candidate, self.schedule)


@dataclass(frozen=True)
class SplitChoice:
    """A split with the schedules of its kernels.

    Attributes
    ----------
    split: how the weight is stored.
    workloads: what the kernels compute: the blocks', then the rest's.
    parts: how.
    cycles: what the analytic model predicts for both on one core.
    """

    split: Split
    workloads: tuple[ConvWorkload, ConvWorkload]
    parts: tuple[Choice, Choice]
    cycles: float

    def __str__(self) -> str:
        return f"{self.parts[0].family.name}: {self.split}"
