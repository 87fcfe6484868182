"""Pruning by magnitude, at once or step by step: simple, and what better ways are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.pruning.pruner import Pruner
from pconvgen.sparsity import STRUCTURES, Units, Weight

CRITERIA = ("magnitude", "geometric_median")


class OneShotPruner(Pruner):
    """Prunes at `harden`, and leaves the training before it alone; see `Pruner` for the other parameters.

    Parameters
    ----------
    criterion: `magnitude` keeps what has the largest norm; `geometric_median` keeps the filters that are farthest from
        the others, because those near the middle can be replaced by others (He et al., arXiv 1811.00250).

    Raises
    ------
    UsageError: an unknown criterion, or one that does not fit the structure.
    """

    def __init__(self, *args: Any, criterion: str = "magnitude", **options: Any) -> None:
        super().__init__(*args, **options)
        if criterion not in CRITERIA:
            raise UsageError("unknown criterion", found=criterion, expected=f"one of {', '.join(CRITERIA)}")
        others = [c.name for c in self._plan.constraints if not STRUCTURES[c.structure].whole_filters]
        if criterion == "geometric_median" and others:
            raise UsageError(
                "the geometric median is one of filters",
                layer=others[0],
                remedy="prune filters, or choose the criterion magnitude",
            )
        self._criterion = criterion

    def _units(self, weights: Mapping[str, Weight] | None = None) -> dict[str, Units]:
        found = super()._units(weights)
        if self._criterion == "magnitude":
            return found
        return {
            c.name: replace(found[c.name], norms=distances(c.layer.weight()).reshape(found[c.name].norms.shape))
            for c in self._plan.constraints
        }


class IterativePruner(OneShotPruner):
    """Prunes a little more after each epoch (Zhu and Gupta, arXiv 1710.01878): fast at first, slowly at the end.

    What is pruned stays zero.

    Parameters
    ----------
    epochs: steps until the densities of the budget are reached.
    """

    def __init__(self, *args: Any, epochs: int, **options: Any) -> None:
        super().__init__(*args, **options)
        if epochs < 1:
            raise UsageError("there is no epoch to prune in", found=epochs, expected="1 or more")
        self._epochs, self._done = epochs, 0

    def _update(self, epoch: int) -> dict[str, float]:
        super()._update(epoch)
        self._done = min(self._done + 1, self._epochs)
        left = (1 - self._done / self._epochs) ** 3
        units = self._units()
        masks = {}
        for constraint in self._plan.constraints:
            name, final = constraint.name, self._densities[constraint.name]
            self._densities[name] = final + left * (units[name].share - final)
            masks[name] = constraint.layer.tensor(units[name].mask(self._densities[name]))
        self._hold(masks)
        return {}

    def _own_state(self) -> dict[str, Any]:
        return {"done": self._done}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]


def distances(weight: Weight) -> NDArray[np.float64]:
    """How far each filter is from all others together, 0 for filters that are gone: float64 [filters]."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    energy = np.square(flat).sum(axis=1)
    squares = energy[:, None] + energy[None, :] - 2 * (flat @ flat.T)
    alive = energy > 0
    return np.asarray(np.sqrt(np.maximum(squares, 0)) @ alive * alive)
