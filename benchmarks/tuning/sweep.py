"""The tuner on one layer, against an exhaustive sweep of its schedules."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import Progress, Tuner, TuningBudget

DENSITY = 0.125
SHARE = 0.1
"""Of the trials of a sweep, for the tuner."""


@dataclass(frozen=True)
class Sweep:
    """One layer: seconds of the default, of the tuner's best and of the best of all.

    Attributes
    ----------
    layer, structure: which.
    space: trials of the sweep.
    trials: those of the tuner.
    default, tuned, best: costs in seconds.
    """

    layer: str
    structure: str
    space: int
    trials: int
    default: float
    tuned: float
    best: float


def sweep(pruning: Pruning, channels: int, size: int, console: Console) -> Sweep:
    """Tunes a layer with a tenth of the trials, then measures all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval()
    weight = pruned(model[0].weight.detach().numpy(), pruning, DENSITY)
    model[0].weight.data = torch.from_numpy(np.ascontiguousarray(weight))
    imported = pconvgen.load_model(model, example=(torch.zeros(1, channels, size, size),))
    target, device = get_target("host"), get_device("local")
    (task,), _ = tasks_of(imported, target)
    budget = max(1, round(SHARE * len(task.choices)))
    with tempfile.TemporaryDirectory(prefix="pconvgen-sweep-") as name:
        tuned = tune(imported, target, device, Path(name) / "tuned.jsonl", TuningBudget(trials=budget), cores=CORE)
    # What the tuner takes for the best, as the sweep has measured it: the same runner, at the same time.
    taken = min(range(len(task.choices)), key=lambda number: tuned.tuner.cost(task.key, task.choices[number]))
    records = path_of(target, f"sweep-{pruning.name}-{channels}-{size}")
    records.parent.mkdir(parents=True, exist_ok=True)
    records.unlink(missing_ok=True)
    with console.status(f"sweeping {len(task.choices)} schedules"):
        swept = tune(imported, target, device, records, TuningBudget(), cores=CORE, strategy=Exhaustive)
    costs = [swept.tuner.cost(task.key, choice) for choice in task.choices]
    return Sweep(f"{channels}@{size}", pruning.name, len(costs), tuned.tuner.trials, costs[0], costs[taken], min(costs))


class Exhaustive(Tuner):
    """Tries everything, in order."""

    def _propose(self, count: int, building: Sequence[Progress]) -> list[tuple[Progress, Choice, dict[str, Any]]]:
        return [(progress, *progress.untried.pop(0)) for progress in self.progress.values() if progress.untried]
