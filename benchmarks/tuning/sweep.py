"""The tuner on one layer, against schedules that are drawn by chance."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

import pconvgen
from benchmarks.latency.records import path_of
from benchmarks.layer_data import pruned
from benchmarks.layers import Pruning
from benchmarks.measuring import CORE
from pconvgen.devices import get_device
from pconvgen.records.describe import describe_choice
from pconvgen.targets.presets import get_target
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import Progress, Proposal, Tuner, TuningBudget

DENSITY = 0.125
TRIALS = 60
"""For the tuner."""
CHANCE = 500
"""Schedules that are drawn by chance; all where there are fewer."""


@dataclass(frozen=True)
class Sweep:
    """One layer: seconds of the default, of the tuner's best and of the best of those drawn by chance.

    Attributes
    ----------
    layer, structure: which.
    space: schedules that there are.
    drawn: trials of the sweep.
    trials: those of the tuner.
    default, tuned, best: costs in seconds.
    off: median of how far the tuner's predictions were off.
    """

    layer: str
    structure: str
    space: int
    drawn: int
    trials: int
    default: float
    tuned: float
    best: float
    off: float


def sweep(pruning: Pruning, channels: int, size: int, console: Console) -> Sweep:
    """Tunes a layer on a device that nothing is known of, then measures schedules that are drawn by chance."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval()
    weight = pruned(model[0].weight.detach().numpy(), pruning, DENSITY)
    model[0].weight.data = torch.from_numpy(np.ascontiguousarray(weight))
    imported = pconvgen.load_model(model, example=(torch.zeros(1, channels, size, size),))
    target, device = get_target("host"), get_device("local")
    (task,), _ = tasks_of(imported, target)
    with tempfile.TemporaryDirectory(prefix="pconvgen-sweep-") as name:
        budget, records = TuningBudget(trials=TRIALS), Path(name) / "tuned.jsonl"
        tuned = tune(imported, target, device, records, budget, cores=CORE, strategy=Untaught).tuner
    # What the tuner takes for the best, as the sweep has measured it: the same runner, at the same time.
    taken = min(range(len(task.choices)), key=lambda number: tuned.cost(task.key, task.choices[number]))
    records = path_of(target, f"sweep-{pruning.name}-{channels}-{size}")
    records.parent.mkdir(parents=True, exist_ok=True)
    records.unlink(missing_ok=True)
    first = [describe_choice(task.choices[number]) for number in (0, taken)]
    budget = TuningBudget(trials=CHANCE)
    with console.status(f"drawing {min(CHANCE, len(task.choices))} of {len(task.choices)} schedules"):
        swept = tune(imported, target, device, records, budget, cores=CORE, strategy=partial(Chance, first)).tuner
    costs = [swept.cost(task.key, choice) for choice in task.choices]
    return Sweep(
        layer=f"{channels}@{size}",
        structure=pruning.name,
        space=len(costs),
        drawn=swept.trials,
        trials=tuned.trials,
        default=costs[0],
        tuned=costs[taken],
        best=min(costs),
        off=float(np.median(np.abs(tuned.doubt.errors))),
    )


class Untaught(Tuner):
    """Knows nothing of other devices."""

    def __init__(self, *args: Any, others: Iterable[Any] = (), **options: Any) -> None:
        super().__init__(*args, others=(), **options)


class Chance(Tuner):
    """Tries some schedules, then others as they are drawn."""

    def __init__(self, first: Sequence[dict[str, Any]], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._first = list(first)

    def _propose(self, count: int, building: Sequence[Progress]) -> list[Proposal]:
        (progress,) = self.progress.values()
        if not progress.untried:
            return []
        wanted = self._first.pop(0) if self._first else None
        numbers = [number for number, (_, trial) in enumerate(progress.untried) if trial == wanted]
        number = numbers[0] if numbers else int(self._rng.integers(len(progress.untried)))
        return [Proposal(progress, *progress.untried.pop(number))]
