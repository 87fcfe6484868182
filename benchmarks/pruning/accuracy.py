"""Accuracy after pruning: ADMM beside one-shot magnitude, over networks, structures and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.pruning.datasets import Folders, Images
from benchmarks.pruning.training import Recipe, accuracy, dense, example, pruned, trained_on
from pconvgen.pruning import ADMMPruner, Density, OneShotPruner, Rho

TRAINED = ("mobilenet_v2", "resnet", "vgg")
"""Networks; those that take longest first, so that workers end together."""
RHO = Rho(0.03, 1.6, 4.0)
CASES = (
    ("pattern", 0.125),
    ("simd_block", 0.25),
    ("simd_block", 0.125),
    ("block_punched", 0.25),
    ("block_punched", 0.125),
    ("filter", 0.125),
)
"""Structures, and shares of the weights of pruned layers that are kept."""
COMPARED = 0.125
"""Where ADMM is compared with one-shot pruning."""


@dataclass(frozen=True)
class Outcome:
    """One network, seed, structure and density.

    Attributes
    ----------
    network, seed, structure, density: which.
    dense: accuracy in percent of the network that was pruned, and trained on in the same way.
    hard: accuracy right after ADMM's hard pruning.
    admm: after fine-tuning.
    hard_one_shot: accuracy right after pruning by magnitude; None, as the next ones, unless the density is COMPARED.
    one_shot: with the fine-tuning of ADMM.
    one_shot_long: with fine-tuning for as many epochs as both phases of ADMM.
    """

    network: str
    seed: int
    structure: str
    density: float
    dense: float
    hard: float
    admm: float
    hard_one_shot: float | None = None
    one_shot: float | None = None
    one_shot_long: float | None = None


Job = tuple[str, int, Recipe, Callable[[int], Images | Folders]]


def outcomes(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """All structures of each (network, seed, recipe, data by seed), as they are ready."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_job, jobs):
            yield from found


def _job(job: Job) -> list[Outcome]:
    network, seed, recipe, load = job
    torch.set_num_threads(1)
    data = load(seed)
    start = dense(network, data, seed, recipe)
    inputs = example(data)
    best = accuracy(trained_on(start, data, seed, recipe), data)
    found = []
    for structure, density in CASES:

        def admm(model: Any, structure: str = structure, density: float = density) -> ADMMPruner:
            return ADMMPruner(model, inputs, structure, Density(density), rho=RHO)

        def one_shot(model: Any, structure: str = structure, density: float = density) -> OneShotPruner:
            return OneShotPruner(model, inputs, structure, Density(density))

        _, hard, tuned = pruned(start, data, seed, recipe, admm)
        outcome = Outcome(network, seed, structure, density, best, hard, tuned)
        if density == COMPARED:
            _, hard_shot, short = pruned(start, data, seed, replace(recipe, prune=0), one_shot)
            longer = replace(recipe, prune=0, tune=recipe.prune + recipe.tune)
            _, _, long = pruned(start, data, seed, longer, one_shot)
            outcome = replace(outcome, hard_one_shot=hard_shot, one_shot=short, one_shot_long=long)
        found.append(outcome)
    return found


def paired(outcomes: list[Outcome], key: str) -> tuple[float, float]:
    """Mean of ADMM's accuracy minus another one's over all, and the standard error of that mean."""
    found = np.array([o.admm - getattr(o, key) for o in outcomes])
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0
