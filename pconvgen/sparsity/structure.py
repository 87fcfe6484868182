"""What every sparsity structure can do: detect itself, say what it keeps or drops as a whole, encode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.taps import TapEncoding

if TYPE_CHECKING:
    from pconvgen.sparsity.units import Units

Weight = NDArray[np.float32]
"""Convolution weight, float32 [filters, input channels / groups, kernel height, kernel width]."""


def swap_channels(weight: Weight, groups: int) -> Weight:
    """A transposed convolution's weight [channels, filters / groups, ...] as [filters, channels / groups, ...].

    The other way round it is the same exchange.
    """
    grouped = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(grouped).reshape(-1, *grouped.shape[2:])


@dataclass(frozen=True)
class TapShape:
    """The sizes of an encoding, which is all that its cost depends on.

    Attributes
    ----------
    group: filters per group, G.
    taps: taps per entry, K.
    columns: kernel columns in which the taps of a body lie, on average over the bodies.
    bodies: number of bodies.
    groups: number of groups.
    entries: entries of all groups.
    """

    group: int
    taps: int
    columns: float
    bodies: int
    groups: int
    entries: int


@dataclass(frozen=True)
class Candidate:
    """One way to store a weight without losing any of its non-zeros.

    Attributes
    ----------
    structure: key of STRUCTURES.
    params: parameters of the structure that `encode` needs, e.g. {"n": 4, "whole_kernel": False}. Plain JSON values
        (patterns are lists of [row, column]).
    stored: weights that the encoding stores, fill included.
    nonzeros: non-zero weights among them; `fill` is their share.
    unit: filters that share entries, at most; an encoding's groups have no more.
    taps: taps of an entry, K.
    columns: kernel columns in which they lie, on average over the bodies.
    bodies: number of bodies.
    """

    structure: str
    params: Mapping[str, Any] = field(default_factory=dict)
    stored: int = 0
    nonzeros: int = 0
    unit: int = 1
    taps: int = 1
    columns: float = 1.0
    bodies: int = 1

    @property
    def fill(self) -> float:
        """Share of the stored weights that are not zero; 1.0 when nothing is stored."""
        return self.nonzeros / self.stored if self.stored else 1.0

    def shape(self, filters: int, groups: int, max_group: int) -> TapShape:
        """The sizes of its encoding for a layer of `filters`, without making it; groups of filters are padded."""
        group = min(self.unit, max_group)
        return TapShape(
            group=group,
            taps=self.taps,
            columns=self.columns,
            bodies=self.bodies,
            groups=groups * -(-filters // groups // group),
            entries=-(-self.stored // (self.taps * group)),
        )

    def shapes(self, filters: int, groups: int, most: Iterable[int]) -> Iterator[tuple[int, TapShape]]:
        """(largest group, sizes) of its encodings for groups of at most so many filters, each size once."""
        seen: set[TapShape] = set()
        for max_group in most:
            shape = self.shape(filters, groups, max_group)
            if shape not in seen:
                seen.add(shape)
                yield max_group, shape

    def __str__(self) -> str:
        params = ",".join(f"{v}" for k, v in self.params.items() if k != "patterns" and v is not False)
        return f"{self.structure}({params})" if params else self.structure


class Structure(Protocol):
    """One sparsity structure. Instances are stateless rows of STRUCTURES.

    Attributes
    ----------
    name: key of STRUCTURES.
    per_weight: whether every weight is kept or dropped, and has an index, by itself, so that nothing is ever filled.
    shares_positions: whether filters of a block keep the same positions, and so share what they read.
    spans_channels: whether entries take several input channels, which then have to lie side by side.
    connectivity: whether whole kernels are dropped besides what is dropped of the others: two constraints in one.
    whole_filters: whether what is kept or dropped are whole filters.
    """

    name: str
    per_weight: bool = False
    shares_positions: bool = False
    spans_channels: bool = False
    connectivity: bool = False
    whole_filters: bool = False

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """Candidates that hold all non-zeros of `weight`; empty when the structure does not apply to its shape.

        Only values decide: a zero is a pruned weight, whoever set it.
        """

    def units(self, weight: Weight, *args: Any, **params: Any) -> Units:
        """What is kept or dropped as a whole in such a weight.

        `params` are keywords: `groups`, and what the structure names; the params of a Candidate are valid ones.
        """

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """`weight` as taps. Groups have at most `max_group` filters and never straddle convolution groups."""

    def fit(self, shape: tuple[int, ...], groups: int) -> dict[str, Any] | None:
        """Parameters for pruning weights of that shape; None where the structure does not apply."""
        return {}

    def learn(self, weight: Weight, patterns: int | str | Sequence[Any]) -> dict[str, Any] | None:
        """Further parameters, from the weight itself; None where it has nothing to learn from.

        `patterns` is what the user asked for, see `Pruner`; structures without patterns learn nothing.
        """
        return {}

    def keeps_all(self, shape: tuple[int, ...]) -> str:
        """Why all units of weights of that shape are kept, whatever the density; empty where they need not be."""
        return ""

    def is_promising(self, shape: tuple[int, ...], *, depthwise: bool) -> bool:
        """Whether `structure="auto"` looks at it for such layers."""
        return False
