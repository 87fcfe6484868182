"""Sparsity structures: how a pruned weight is recognised, produced and stored. Needs numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pconvgen.sparsity.block_punched import BlockPunched
from pconvgen.sparsity.dense import Dense
from pconvgen.sparsity.filter import Filter
from pconvgen.sparsity.pattern import PatternStructure
from pconvgen.sparsity.simd_block import SimdBlock
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding
from pconvgen.sparsity.units import Units
from pconvgen.sparsity.unstructured import Unstructured

__all__ = [
    "DENSE",
    "SPARSE",
    "STRUCTURES",
    "Candidate",
    "Filter",
    "SimdBlock",
    "Structure",
    "TapEncoding",
    "Units",
    "Unstructured",
    "Weight",
    "candidates",
    "density",
    "encode",
    "project",
    "smallest",
]

_ROWS: tuple[Structure, ...] = (
    Filter(),
    PatternStructure(),
    SimdBlock(),
    BlockPunched(),
    Unstructured(),
    Dense(),
)
STRUCTURES: dict[str, Structure] = {row.name: row for row in _ROWS}
"""All structures by name. A new structure is a new row here; the tests iterate over the table."""

DENSE = Dense.name
SPARSE = tuple(name for name in STRUCTURES if name != DENSE)
"""The names of those that have zeros."""


def candidates(weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
    """Every way to store `weight` ([filters, channels / groups, height, width]) without loss; dense is the last.

    What would store as many weights as dense gains nothing and is left out.
    """
    found = (candidate for structure in STRUCTURES.values() for candidate in structure.detect(weight, groups))
    return tuple(candidate for candidate in found if candidate.structure == DENSE or candidate.stored < weight.size)


def smallest(found: Sequence[Candidate]) -> Candidate:
    """The candidate with the fewest bytes of weights and indices: the structure that a weight has.

    A weight of one structure fits more general ones too (a SIMD block of 4 is two of 2, a pattern is unstructured), at
    the price of more indices, or more special ones at the price of fill.
    """
    return min(found, key=lambda candidate: candidate.stored * (1 + 1 / (candidate.taps * min(candidate.unit, 8))))


def encode(weight: Weight, candidate: Candidate, groups: int = 1, max_group: int = 8) -> TapEncoding:
    """`weight` as taps of the candidate's structure, in groups of at most `max_group` filters."""
    return STRUCTURES[candidate.structure].encode(weight, candidate, groups=groups, max_group=max_group)


def project(structure: str, weight: Weight, density: float, *, groups: int = 1, **params: Any) -> Weight:
    """The nearest weight (Euclidean) of a structure that keeps about `density` of the weights, at least one unit.

    Parameters
    ----------
    structure: key of STRUCTURES.
    weight: float32 [filters, channels / groups, height, width]; stays as it is.
    density: share of the weights to keep.
    params: of the structure; those of a Candidate are valid ones.

    Raises
    ------
    UsageError: the density is not over 0 and at most 1, or the structure does not apply to such a weight.
    """
    units = STRUCTURES[structure].units(weight, groups=groups, **params)
    return np.where(units.mask(density), weight, np.float32(0))


def density(weight: Weight) -> float:
    """Share of the weights that are not zero."""
    return float(np.count_nonzero(weight) / weight.size)
