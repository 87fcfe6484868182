"""Pruning by reweighted group regularisation (Candes et al., 2008; block-punched in YOLObile's and NPAS's group).

Each unit of a structure costs its squared norm divided by what that was at the last step: small units are pushed to
zero, large ones are hardly touched, and nothing has to be known of how many are to be left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pconvgen.pruning.pruner import Pruner

SMALL = 0.1
"""Of the mean squared norm that units had at first: below it, a unit counts as gone. Bounds the factor of a unit that
is zero; of the present mean, it would not, because weights before batch norm may shrink for ever."""


class ReweightedPruner(Pruner):
    """Prunes by reweighted group regularisation; see `Pruner` for the other parameters.

    Parameters
    ----------
    strength: of the penalty, which is that number when no unit is small and nears 0 when all are.
    """

    def __init__(self, *args: Any, strength: float = 1.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self._strength = strength
        self._factors: dict[str, torch.Tensor] = {}
        self._small: dict[str, float] = {}

    def _penalty(self) -> torch.Tensor:
        if not self._factors:
            self._weigh()
        found = super()._penalty()
        for constraint in self._plan.constraints:
            found = found + (self._factors[constraint.name] * constraint.layer.parameter.square()).sum()
        return self._strength * found

    def _update(self, epoch: int) -> dict[str, float]:
        super()._update(epoch)
        self._weigh()
        return {}

    def _weigh(self) -> None:
        units = self._units()
        total = sum(mine.norms.size for mine in units.values())
        for constraint in self._plan.constraints:
            mine = units[constraint.name]
            energy = np.square(mine.norms, dtype=np.float64)
            small = self._small.setdefault(constraint.name, SMALL * float(energy.mean()) or 1.0)
            factors = mine.spread(1 / (total * (energy + small)))
            # What is in no unit, because it lies outside of its kernel's pattern, is to vanish in any case.
            factors = np.where(factors > 0, factors, 1 / (total * small)).astype(np.float32)
            self._factors[constraint.name] = constraint.layer.tensor(factors)

    def _own_state(self) -> dict[str, Any]:
        return {"factors": self._factors, "small": dict(self._small)}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        weights = {c.name: c.layer.parameter for c in self._plan.constraints}
        self._factors = {name: found.to(weights[name].device, copy=True) for name, found in state["factors"].items()}
        self._small = dict(state["small"])
