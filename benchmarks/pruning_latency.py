"""Accuracy against measured milliseconds: ALCS's allocation beside uniform densities and filter pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.datasets import Folders, Images
from benchmarks.pruning_accuracy import RHO
from benchmarks.pruning_train import Recipe, accuracy, dense, example, pruned
from pconvgen.devices import get_device
from pconvgen.pruning import ADMMPruner, Budget, Density, Latency, OneShotPruner
from pconvgen.pruning.costs import measure_ms
from pconvgen.pruning.layers import exported

NETWORK, STRUCTURE = "vgg, wider", "simd_block"
SHARES = (0.5, 0.35, 0.25)
"""Budgets, of what the dense network takes."""
WAYS = ("dense", "ALCS", "uniform", "filter")
STEPS = 7
"""Measurements to find the density that takes as long as a budget allows."""


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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measured(model: nn.Module, data: Images | Folders) -> float:
    """Milliseconds of an inference of one image on this machine."""
    return measure_ms(exported(model, example(data)), Latency("host", 1.0), get_device("local"))


def density_for(start: nn.Module, data: Images | Folders, structure: str, ms: float) -> float:
    """The density of all layers with which a network takes that long, found by bisection."""
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
    densities: dict[tuple[str, float], float] = {}
    for seed in range(seeds):
        data = load(seed)
        report(f"seed {seed}: dense")
        start = dense(NETWORK, data, seed, recipe)
        whole = measured(start, data)
        yield Outcome("dense", seed, whole, whole, accuracy(start, data))
        for share in SHARES:
            report(f"seed {seed}: {share} of the time of the dense network")
            ms = share * whole
            make = partial(_admm, data=data, structure=STRUCTURE, budget=Latency("host", ms, curves=curves))
            model, _, found = pruned(start, data, seed, recipe, make)
            taken = measured(model, data)
            yield Outcome("ALCS", seed, ms, taken, found)
            for way, structure in (("uniform", STRUCTURE), ("filter", "filter")):
                # At the latency that ALCS has reached, which is the comparison; once, as seeds hardly differ in it.
                if (way, share) not in densities:
                    densities[way, share] = density_for(start, data, structure, taken)
                make = partial(_admm, data=data, structure=structure, budget=Density(densities[way, share]))
                model, _, found = pruned(start, data, seed, recipe, make)
                yield Outcome(way, seed, ms, measured(model, data), found)


def _admm(model: nn.Module, data: Images | Folders, structure: str, budget: Budget) -> ADMMPruner:
    return ADMMPruner(model, example(data), structure, budget, rho=RHO)
