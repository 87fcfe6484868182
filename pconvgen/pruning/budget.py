"""What a pruned network may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pconvgen.errors import UsageError
from pconvgen.sparsity.units import check_density


@dataclass(frozen=True)
class Density:
    """The same share of the weights of each pruned layer is kept.

    Raises UsageError when `share` is not over 0 and at most 1.
    """

    share: float

    def __post_init__(self) -> None:
        check_density(self.share)


@dataclass(frozen=True)
class Macs:
    """At most `count` multiply-accumulates with weights that are not zero, for the example inputs."""

    count: float

    def __post_init__(self) -> None:
        _check_positive("multiply-accumulates", self.count)


@dataclass(frozen=True)
class Size:
    """At most `nbytes` of weights and of indices that say where they are, in float32."""

    nbytes: float

    def __post_init__(self) -> None:
        _check_positive("bytes", self.nbytes)


@dataclass(frozen=True)
class Latency:
    """At most `ms` milliseconds for the example inputs, with one thread (ALCS, arXiv 2109.00170).

    Attributes
    ----------
    target: name of a preset, see `pconvgen targets`.
    ms: what an inference may take.
    device: where layers and the network are measured, as `--device`. None measures on this machine when the target is
        this machine, and else predicts.
    model: what `pconvgen latency fit` wrote, to predict times with; None for the one that comes with pconvgen.
    curves: a file that keeps what layers cost by density, which takes minutes to measure: read where it is there and of
        the same layers, written where it is not.
    """

    target: str
    ms: float
    device: str | None = None
    model: str | Path | None = None
    curves: str | Path | None = None

    def __post_init__(self) -> None:
        _check_positive("milliseconds", self.ms)


Budget = Density | Macs | Size | Latency


def _check_positive(what: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"the budget of {what} is not positive", found=value, expected="more than 0")
