"""How many weights each layer keeps under a budget: the projection that ALCS (arXiv 2109.00170) splits off by ADMM.

What is kept of each layer is worth the more the more of its squared norm it has. All layers together may cost no more
than the budget, where a layer's cost is a piecewise-linear function of its density that need not be convex. That is a
knapsack problem with one choice for each layer. It is solved by dynamic programming over costs that are rounded up to
a fraction of the budget, so that a solution never exceeds it and is as good as the best one for a budget that is
smaller by less than that fraction for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.sparsity.units import Units
from pconvgen.whatif.curve import LatencyCurve

BINS = 4000
"""Steps in which costs are counted, of the budget."""
LEVELS = 48
"""Densities among which a layer's is chosen, evenly spaced by their logarithm: each 5 to 6 % above the one before."""


SAMPLE = 1 << 18
"""Units of a layer that are looked at, at most, to tell what they are worth: all of them would take longer to sort."""


@dataclass(frozen=True)
class NetworkCosts:
    """What layers cost by density, and what they may cost together.

    Attributes
    ----------
    budget: of the network, in `unit`.
    unit: what is counted, for messages.
    fixed: cost of what is not pruned.
    curves: name -> cost over density.
    scale: how many times more the network costs than its layers.
    """

    budget: float
    unit: str
    fixed: float
    curves: Mapping[str, LatencyCurve]
    scale: float = 1.0

    def total(self, densities: Mapping[str, float]) -> float:
        """What the network costs with these densities."""
        return self.scale * (self.fixed + sum(curve.at(densities[name]) for name, curve in self.curves.items()))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        curves = {name: [list(curve.densities), list(curve.costs)] for name, curve in self.curves.items()}
        return {"budget": self.budget, "unit": self.unit, "fixed": self.fixed, "curves": curves, "scale": self.scale}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> NetworkCosts:
        """The inverse of `to_json`."""
        curves = {name: LatencyCurve(tuple(d), tuple(c)) for name, (d, c) in data["curves"].items()}
        return NetworkCosts(**{**data, "curves": curves})

    def measured(self, densities: Mapping[str, float], cost: float) -> NetworkCosts:
        """The same with the scale that explains what was measured."""
        return replace(self, scale=self.scale * cost / self.total(densities))


def levels(curve: LatencyCurve) -> NDArray[np.float64]:
    """Densities of a curve to choose from, ascending."""
    found = np.geomspace(curve.densities[0], curve.densities[-1], LEVELS)
    return np.clip(found, curve.densities[0], curve.densities[-1])


def value(units: Units, densities: NDArray[np.float64]) -> NDArray[np.float64]:
    """What keeping that much of a layer is worth: the logarithm of the share of its squared norm that is left.

    Shares, because the scale of a layer before batch norm means nothing; their logarithms, because what is lost in one
    layer is lost for all after it: shares multiply.
    """
    norms = units.norms.reshape(-1)
    norms = norms[:: -(-norms.size // SAMPLE)]
    energy = np.square(np.sort(norms)[::-1], dtype=np.float64).cumsum()
    if not energy[-1] > 0:
        return np.zeros(len(densities))
    part = len(norms) / units.norms.size
    kept = energy[[max(1, round(part * units.count(float(share)))) - 1 for share in densities]]
    return np.asarray(np.log(np.maximum(kept / energy[-1], 1e-12)))


def allocate(
    costs: NetworkCosts, values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> dict[str, float]:
    """The densities of all layers that are worth most of those that the budget pays for.

    Parameters
    ----------
    costs: of the same layers, at least.
    values: name -> (densities to choose from, what each is worth).

    Raises
    ------
    UsageError: the budget does not pay for the lowest densities.
    """
    names = list(values)
    prices = [np.array([costs.curves[name].at(float(share)) for share in values[name][0]]) for name in names]
    floor = costs.scale * (costs.fixed + sum(float(price.min()) for price in prices))
    left = costs.budget / costs.scale - costs.fixed
    if floor > costs.budget:
        raise UsageError(
            "the budget is below what the network costs at the lowest densities",
            found=f"{costs.budget:.4g} {costs.unit}",
            expected=f"{floor:.4g} or more, {costs.scale * costs.fixed:.4g} of them for what is not pruned",
            remedy="raise the budget, prune more layers, or start from a smaller network",
        )
    steps = [np.ceil(price * (BINS / left) - 1e-9).astype(int) for price in prices]
    if sum(int(step.min()) for step in steps) > BINS:  # by rounding only
        return {name: float(values[name][0][price.argmin()]) for name, price in zip(names, prices, strict=True)}
    best = np.zeros(BINS + 1)
    picks = []
    for name, step in zip(names, steps, strict=True):
        table = np.full((len(step), BINS + 1), -np.inf)
        for level, (worth, price) in enumerate(zip(values[name][1], step, strict=True)):
            if price <= BINS:
                table[level, price:] = best[: BINS + 1 - price] + worth
        picks.append(table.argmax(axis=0))
        best = table.max(axis=0)
    found, spent = {}, BINS
    for name, step, pick in reversed(list(zip(names, steps, picks, strict=True))):
        level = int(pick[spent])
        found[name] = float(values[name][0][level])
        spent -= int(step[level])
    return {name: found[name] for name in names}
