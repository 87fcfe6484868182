"""The structure that each layer is pruned to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pconvgen.errors import UsageError
from pconvgen.matching.fused_ops import FusedOp
from pconvgen.pruning.layers import PrunableWeight
from pconvgen.sparsify import fitting
from pconvgen.sparsity import DENSE, SPARSE, STRUCTURES, Units, Unstructured, Weight
from pconvgen.whatif.layer_curves import LOWEST

AUTO = "auto"
_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")


@dataclass(frozen=True, eq=False)
class Constraint:
    """A layer, and what its zeros are to form.

    Attributes
    ----------
    layer: the layer.
    structure: key of STRUCTURES.
    params: of the structure.
    fixed: density that the structure or the user settles; None where the budget does.
    note: why it is not what was asked for, empty when it is.
    """

    layer: PrunableWeight
    structure: str
    params: Mapping[str, Any] = field(default_factory=dict)
    fixed: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.layer.name

    def units(self, weight: Weight | None = None) -> Units:
        """What is kept or dropped as a whole, of the layer's weight or another one of its shape."""
        weight = self.layer.weight() if weight is None else weight
        return STRUCTURES[self.structure].units(weight, groups=self.layer.groups, **self.params)

    @cached_property
    def highest(self) -> float:
        """The largest density: that of the structure, less than 1 for patterns, or the one that is settled."""
        return self.units().share if self.fixed is None else self.fixed

    @property
    def lowest(self) -> float:
        """The smallest density that a budget may leave it."""
        return min(LOWEST, self.highest) if self.fixed is None else self.fixed

    def share(self, density: float) -> float:
        """What it keeps where all layers are to keep that much."""
        return min(density, self.highest) if self.fixed is None else self.fixed


def as_computed(constraint: Constraint, fused_op: FusedOp) -> tuple[str, dict[str, Any]]:
    """The structure and its parameters for a layer as the compiler computes it.

    A transposed convolution is computed as another one, with smaller kernels: what fits these and is nearest.
    """
    if fused_op.weight.shape == constraint.layer.weight().shape:
        return constraint.structure, dict(constraint.params)
    structure, params, _ = fitting(fused_op.op, fused_op.weight.shape, fused_op.workload.groups, constraint.structure)
    return structure, dict(params)


def constrain(
    layer: PrunableWeight, wanted: str, patterns: int | str | Sequence[Any], density: float | None
) -> Constraint:
    """What a layer is pruned to when `wanted` is asked for; dense where that is impossible, with a note why.

    Parameters
    ----------
    wanted: key of STRUCTURES, or N:M.
    patterns: how many patterns are learned from the weight, "pconv" for those of PCONV, or lists of [row, column].
    density: that the user gave for the layer.
    """
    weight = layer.weight()
    match = _N_OF_M.fullmatch(wanted)
    if match:
        n, m = int(match[1]), int(match[2])
        if m > weight.shape[1]:
            return Constraint(layer, DENSE, note=f"left as it is: fewer than {m} input channels")
        return Constraint(layer, Unstructured.name, {"m": m}, fixed=n / m)
    structure, sizes, note = fitting(layer.op, weight.shape, layer.groups, wanted)
    row = STRUCTURES[structure]
    learned = row.learn(weight, patterns)
    if learned is None:
        return Constraint(layer, DENSE, note="left as it is: all its weights are zero")
    params = sizes | learned
    if reason := row.keeps_all(weight.shape):
        share = row.units(weight, groups=layer.groups, **params).share
        return Constraint(layer, structure, params, share, reason)
    return Constraint(layer, structure, params, density, note)


def check_structure(wanted: str) -> None:
    """Raises UsageError when it is neither a structure, nor N:M, nor `auto`."""
    match = _N_OF_M.fullmatch(wanted)
    if wanted in (*SPARSE, AUTO) or (match and int(match[1]) < int(match[2])):
        return
    raise UsageError("unknown structure", found=wanted, expected=f"one of {', '.join(SPARSE)}, auto, or N:M as 2:4")


def wanted_for(layer: PrunableWeight, structure: str | Mapping[str, str]) -> str:
    """What is asked for a layer: one structure for all, or that of the first glob that has its name; else dense."""
    if isinstance(structure, str):
        return structure
    return next((value for glob, value in structure.items() if fnmatch.fnmatchcase(layer.name, glob)), DENSE)
