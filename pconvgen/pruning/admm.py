"""Pruning by ADMM, the alternating direction method of multipliers (Boyd et al., 2011, section 3).

Each weight W gets a copy Z that has the structure, and a multiplier U that adds up how far they are apart. Training
minimises loss + rho / 2 |W - Z + U|^2; once an epoch, Z becomes what of W + U fits the structure and the budget, and U
becomes W + U - Z. So W moves to where pruning cuts nothing off. As in PatDNN (arXiv 2001.00138), patterns and
connectivity are two constraints with a Z and a U each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pconvgen.errors import UsageError
from pconvgen.pruning.constraint import Constraint
from pconvgen.pruning.pruner import TINY, Pruner
from pconvgen.sparsity import STRUCTURES, Units, Weight
from pconvgen.sparsity.pattern import connectivity
from pconvgen.sparsity.units import Mask


@dataclass(frozen=True)
class Rho:
    """The weight of the penalty: `start`, and `growth` times more after each step, up to `limit`.

    Raises UsageError unless 0 < start <= limit and growth >= 1.
    """

    start: float = 1e-2
    growth: float = 1.5
    limit: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.start <= self.limit and self.growth >= 1):
            raise UsageError("rho does not grow", found=self, expected="0 < start <= limit, growth >= 1")


class ADMMPruner(Pruner):
    """Prunes by ADMM; see `Pruner` for the other parameters.

    Parameters
    ----------
    rho: how strongly weights are drawn to what is left of them.
    """

    def __init__(self, *args: Any, rho: Rho = Rho(), **options: Any) -> None:
        super().__init__(*args, **options)
        self._rho = rho
        self._current_rho = rho.start
        # For each constraint of each layer: U, and Z - U, where the weight is drawn to. Empty before the first step.
        self._duals: dict[str, list[torch.Tensor]] = {}
        self._goals: dict[str, list[torch.Tensor]] = {}

    def _penalty(self) -> torch.Tensor:
        if not self._goals:
            self._project()
        found = super()._penalty()
        for constraint in self._plan.constraints:
            for goal in self._goals[constraint.name]:
                found = found + (constraint.layer.parameter - goal).square().sum()
        return self._current_rho / 2 * found

    def _update(self, epoch: int) -> dict[str, float]:
        used = self._current_rho
        self._project()
        grown = min(used * self._rho.growth, self._rho.limit)
        # U is the multiplier divided by rho.
        for name, duals in self._duals.items():
            for dual, goal in zip(duals, self._goals[name], strict=True):
                goal.add_(dual)
                dual.mul_(used / grown)
                goal.sub_(dual)
        self._current_rho = grown
        return {"rho": used}

    @torch.no_grad()
    def _distances(self) -> dict[str, float]:
        if self._hard:
            return super()._distances()
        found = {}
        for constraint in self._plan.constraints:
            weight, name = constraint.layer.parameter, constraint.name
            lost = [(weight - goal - u).norm() for goal, u in zip(self._goals[name], self._duals[name], strict=True)]
            found[name] = float(max(lost) / max(float(weight.norm()), TINY))
        return found

    @torch.no_grad()
    def _project(self) -> None:
        """Z becomes what of W + U fits, U becomes W + U - Z."""
        self._prepare()
        moved: dict[str, list[torch.Tensor]] = {}
        for constraint in self._plan.constraints:
            weight = constraint.layer.parameter.detach()
            duals = self._duals.get(constraint.name) or [torch.zeros_like(weight)] * _sets(constraint)
            moved[constraint.name] = [weight + dual for dual in duals]
        arrays = {c.name: [c.layer.weight(tensor) for tensor in moved[c.name]] for c in self._plan.constraints}
        units = self._units({name: mine[0] for name, mine in arrays.items()})
        self._densities = self._plan.densities(units)
        for constraint in self._plan.constraints:
            name, density = constraint.name, self._densities[constraint.name]
            masks = _masks(units[name], arrays[name], density)
            self._duals[name], self._goals[name] = [], []
            for tensor, mask in zip(moved[name], masks, strict=True):
                dual = tensor.masked_fill(constraint.layer.tensor(mask), 0.0)
                self._duals[name].append(dual)
                self._goals[name].append(tensor - 2 * dual)

    def _own_state(self) -> dict[str, Any]:
        return {"rho": self._current_rho, "duals": self._duals, "goals": self._goals}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        self._current_rho = state["rho"]
        weights = {c.name: c.layer.parameter for c in self._plan.constraints}
        self._duals, self._goals = (
            {
                name: [tensor.to(weights[name].device, copy=True) for tensor in mine]
                for name, mine in state[kept].items()
            }
            for kept in ("duals", "goals")
        )


def _sets(constraint: Constraint) -> int:
    """How many constraints a weight has: what kernels keep, and which kernels are kept."""
    return 2 if STRUCTURES[constraint.structure].connectivity and constraint.fixed is None else 1


def _masks(units: Units, weights: Sequence[Weight], density: float) -> list[Mask]:
    """What is left of each copy of a weight; `units` are those of the first."""
    if len(weights) == 1:
        return [units.mask(density)]
    return [units.mask(1.0), connectivity(weights[1]).mask(min(1.0, density / units.share))]
