"""What is pruned to which structure, and how much of it a budget pays for."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pconvgen.errors import UsageError
from pconvgen.pruning.allocation import NetworkCosts, allocate, levels, value
from pconvgen.pruning.auto import auto_structures
from pconvgen.pruning.budget import Budget, Density, Latency
from pconvgen.pruning.constraint import AUTO, Constraint, constrain, wanted_for
from pconvgen.pruning.costs import costs_of
from pconvgen.pruning.layers import PrunableWeight
from pconvgen.report.console import progress
from pconvgen.sparsify import chosen_layers
from pconvgen.sparsity import DENSE, Units
from pconvgen.targets.presets import get_target


@dataclass(frozen=True)
class Request:
    """What the user asks for; see `Pruner`."""

    structure: str | Mapping[str, str]
    include: Sequence[str]
    exclude: Sequence[str]
    densities: Mapping[str, float]
    patterns: int | str | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """The layers of a network, and what becomes of them.

    Attributes
    ----------
    layers: all of the network.
    constraints: of those that are pruned.
    notes: layer -> why it is not what was asked for.
    budget: of the network.
    costs: of the network by its densities; None where the budget is a density.
    """

    layers: tuple[PrunableWeight, ...]
    constraints: tuple[Constraint, ...]
    notes: Mapping[str, str]
    budget: Budget
    costs: NetworkCosts | None = None

    def with_costs(self, program: Any) -> Plan:
        """With the costs, which may have to be measured.

        Parameters
        ----------
        program: the network, an ExportedProgram.
        """
        assert not isinstance(self.budget, Density)
        with progress("looking at what layers cost") as report:
            return replace(self, costs=costs_of(self.budget, self.constraints, self.layers, program, report))

    def densities(self, units: Mapping[str, Units]) -> dict[str, float]:
        """Layer -> the share of its weights that is kept, given what there is to keep or drop.

        Raises UsageError when the budget is below what the network costs at the lowest densities.
        """
        if isinstance(self.budget, Density):
            return {c.name: c.share(self.budget.share) for c in self.constraints}
        assert self.costs is not None
        values, free = {}, {}
        for constraint in self.constraints:
            name, mine = constraint.name, units[constraint.name]
            if name not in self.costs.curves:  # the compiler has no kernel for it: fewer weights would save nothing
                free[name] = constraint.highest
                continue
            found = levels(self.costs.curves[name]) if constraint.fixed is None else np.array([constraint.fixed])
            values[name] = (found, value(mine, found))
        return allocate(self.costs, values) | free


def plan(layers: tuple[PrunableWeight, ...], program: Any, request: Request, budget: Budget, source: str) -> Plan:
    """What becomes of the layers of a network when that is asked for.

    Raises
    ------
    UsageError: a glob without a layer, nothing to prune.
    """
    chosen = chosen_layers([(layer.name, layer.op) for layer in layers], request.include, source)
    for glob in (*request.exclude, *request.densities):
        chosen_layers([(layer.name, layer.op) for layer in layers], (glob,), source)
    left = [
        layer
        for layer in layers
        if layer.name in chosen and not any(fnmatch.fnmatchcase(layer.name, glob) for glob in request.exclude)
    ]
    wanted = {layer.name: wanted_for(layer, request.structure) for layer in left}
    unsure = [layer for layer in left if wanted[layer.name] == AUTO]
    if unsure:
        target = get_target(budget.target if isinstance(budget, Latency) else "host")
        share = budget.share if isinstance(budget, Density) else 0.25
        wanted |= {layer.name: DENSE for layer in unsure}
        wanted |= auto_structures(unsure, program, target, share, request.patterns)
    notes = {layer.name: "not chosen" for layer in layers}
    constraints = []
    for layer in left:
        density = next((d for glob, d in request.densities.items() if fnmatch.fnmatchcase(layer.name, glob)), None)
        constraint = constrain(layer, wanted[layer.name], request.patterns, density)
        notes[layer.name] = constraint.note
        if constraint.structure != DENSE:
            constraints.append(constraint)
    if not constraints:
        reasons = {f"{layer.name}: {notes[layer.name] or 'dense was asked for'}" for layer in left}
        raise UsageError(
            "there is no layer to prune",
            file=source,
            found="; ".join(sorted(reasons)) or "all layers are excluded",
            remedy="choose another structure, or other layers",
        )
    return Plan(layers, tuple(constraints), notes, budget)
