"""Accuracy against measured milliseconds: ALCS's allocation beside uniform densities and filter pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.pruning.datasets import Folders, Images
from benchmarks.pruning.training import Recipe, accuracy, dense, example, pruned, trained_on
from pconvgen.devices import get_device
from pconvgen.pruning import ADMMPruner, Density, Latency, OneShotPruner, Pruner, Rho
from pconvgen.pruning.costs import measure_ms
from pconvgen.pruning.layers import exported
from pconvgen.pruning.plan import Plan
from pconvgen.sparsity import Units
from pconvgen.whatif.layer_curves import LOWEST

RHO = Rho(0.1, 1.6, 15.0)
"""More than where accuracies are compared, as there are fewer steps."""
NETWORK, STRUCTURE = "vgg, wider", "simd_block"
SHARES = (0.5, 0.35, 0.25)
"""Budgets, of what the dense network takes."""
WAYS = ("dense", "ALCS", "uniform", "filter")
STEPS = 6
"""Measurements to find the density of filters that takes as long as a budget allows."""


@dataclass(frozen=True)
class Outcome:
    """One network.

    Attributes
    ----------
    way: of WAYS.
    seed: of the data and the training.
    budget_ms: what it may take; for the dense network, what it takes.
    ms: what it takes, measured.
    accuracy: in percent.
    """

    way: str
    seed: int
    budget_ms: float
    ms: float
    accuracy: float


def at(timed: Sequence[Outcome], way: str, share: float) -> list[Outcome]:
    """Those of one way at the budgets of this share of the dense networks' time."""
    dense = {row.seed: row.ms for row in timed if row.way == "dense"}
    return [r for r in timed if r.way == way and abs(r.budget_ms / dense[r.seed] - share) < 1e-6]


def measured(model: nn.Module, data: Images | Folders) -> float:
    """Milliseconds of an inference of one image on this machine."""
    return measure_ms(exported(model, example(data)), Latency("host", 1.0), get_device("local"))


class Uniform(Plan):
    """A plan with one density for all layers: the largest that its budget pays for."""

    def densities(self, units: Mapping[str, Units]) -> dict[str, float]:
        assert self.costs is not None
        low, high = LOWEST, 1.0
        for _ in range(20):
            middle = (low * high) ** 0.5
            found = {name: min(middle, unit.share) for name, unit in units.items()}
            low, high = (middle, high) if self.costs.total(found) <= self.costs.budget else (low, middle)
        return {name: min(low, unit.share) for name, unit in units.items()}


class UniformPruner(ADMMPruner):
    """ADMM with one density for all layers, against a budget of milliseconds, which it meets as others do."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._plan = Uniform(**vars(self._plan))


def density_for(start: nn.Module, data: Images | Folders, structure: str, ms: float) -> float:
    """The density of all layers with which a network takes that long, pruned by magnitude, found by bisection."""
    low, high = 0.02, 1.0
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        model = copy.deepcopy(start)
        OneShotPruner(model, example(data), structure, Density(middle)).harden()
        low, high = (middle, high) if measured(model, data) <= ms else (low, middle)
    return low


def outcomes(
    load: Callable[[int], Images | Folders], seeds: int, recipe: Recipe, curves: Path, report: Callable[[str], None]
) -> Iterator[Outcome]:
    """The dense network of each seed, and for each budget one pruned in each way."""
    densities: dict[float, float] = {}
    for seed in range(seeds):
        data = load(seed)
        report(f"seed {seed}: dense")
        start = dense(NETWORK, data, seed, recipe)
        whole = measured(start, data)
        yield Outcome("dense", seed, whole, whole, accuracy(trained_on(start, data, seed, recipe), data))
        for share in SHARES:
            report(f"seed {seed}: {share} of the time of the dense network")
            ms = share * whole
            if share not in densities:  # once, as seeds hardly differ in it
                densities[share] = density_for(start, data, "filter", ms)
            budget = Latency("host", ms, curves=curves)
            for way, make in (
                ("ALCS", partial(ADMMPruner, structure=STRUCTURE, budget=budget, rho=RHO)),
                ("uniform", partial(UniformPruner, structure=STRUCTURE, budget=budget, rho=RHO)),
                ("filter", partial(ADMMPruner, structure="filter", budget=Density(densities[share]), rho=RHO)),
            ):
                model, _, found = pruned(start, data, seed, recipe, partial(_made, make, data))
                yield Outcome(way, seed, ms, measured(model, data), found)


def _made(make: Callable[..., Pruner], data: Images | Folders, model: nn.Module) -> Pruner:
    return make(model, example(data))
