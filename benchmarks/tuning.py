"""How good the tuner is, against measuring everything: `python -m benchmarks.tuning`.

For two 3x3 layers of each structure, the tuner gets a tenth of the trials of an exhaustive sweep, which is made after
it with the same runner. Then, with `--network`, a pruned ResNet-50 is tuned and run with the default schedules and with
those that were found. Results go to benchmarks/results/tuning.json.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

import pconvgen
from benchmarks.layers import PRUNINGS, Pruning
from benchmarks.network_cases import CASES
from pconvgen.devices import get_device
from pconvgen.files import write_json
from pconvgen.planning.choose import plan_layer
from pconvgen.planning.experience import experience
from pconvgen.report.console import output
from pconvgen.sparsity import STRUCTURES
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import Budget, Progress, Tuner

RESULTS = Path(__file__).parent / "results" / "tuning.json"
SWEEPS = Path("out") / "latency"
"""Where the records of sweeps go, in a folder for the instruction set; `benchmarks.latency` ranks schedules by them."""
LAYERS = ((128, 28), (256, 14))
DENSITY = 0.125
SHARE = 0.1
"""Of the trials of a sweep, for the tuner."""
NEAR = 1.05
"""How many times the cost of the best schedule the tuner's may have."""
MINUTES = 18.0
"""For a whole network."""
CORE = (1,)
"""Kernels are built on the others."""


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


def main(
    network: Annotated[bool, typer.Option("--network", help="Also tune a pruned ResNet-50.")] = False,
    structures: Annotated[list[str] | None, typer.Option("--structure", help="Only these.")] = None,
) -> None:
    """Measures the tuner against exhaustive sweeps."""
    console = output()
    sweeps = []
    for pruning in PRUNINGS:
        if structures and pruning.name not in structures:
            continue
        for channels, size in LAYERS:
            sweeps.append(sweep(pruning, channels, size, console))
            console.print(table(sweeps))
    found = {"sweeps": [asdict(row) for row in sweeps]}
    missed = [row for row in sweeps if row.tuned > NEAR * row.best]
    console.print(f"within {NEAR - 1:.0%} of the best: {len(sweeps) - len(missed)} of {len(sweeps)}")
    if network:
        found["network"] = tuned_network(console)
    write_json(RESULTS, found)
    sys.exit(bool(missed))


def sweep(pruning: Pruning, channels: int, size: int, console: Console) -> Sweep:
    """Tunes a layer with a tenth of the trials, then measures all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval()
    project = STRUCTURES[pruning.structure].project
    weight = model[0].weight.detach().numpy()
    density = 1.0 if pruning.structure == "dense" else DENSITY
    model[0].weight.data = torch.from_numpy(np.ascontiguousarray(project(weight, density, **pruning.params)))
    imported = pconvgen.load_model(model, example=(torch.zeros(1, channels, size, size),))
    target, device = get_target("host"), get_device("local")
    (task,), _ = tasks_of(imported, target)
    budget = max(1, round(SHARE * len(task.choices)))
    with tempfile.TemporaryDirectory(prefix="pconvgen-sweep-") as name:
        tuned = tune(imported, target, device, Path(name) / "tuned.jsonl", Budget(trials=budget), cores=CORE)
    # What the tuner takes for the best, as the sweep has measured it: the same runner, at the same time.
    taken = min(range(len(task.choices)), key=lambda number: tuned.tuner.cost(task.key, task.choices[number]))
    folder = SWEEPS / target.core.name
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / f"sweep-{pruning.name}-{channels}-{size}.jsonl"
    records.unlink(missing_ok=True)
    with console.status(f"sweeping {len(task.choices)} schedules"):
        swept = tune(imported, target, device, records, Budget(), cores=CORE, strategy=Exhaustive)
    costs = [swept.tuner.cost(task.key, choice) for choice in task.choices]
    return Sweep(f"{channels}@{size}", pruning.name, len(costs), tuned.tuner.trials, costs[0], costs[taken], min(costs))


class Exhaustive(Tuner):
    """Tries everything, in order."""

    def _propose(self, count: int, building: Sequence[Progress]) -> list[tuple[Progress, Choice, dict[str, Any]]]:
        return [(progress, *progress.untried.pop(0)) for progress in self.progress.values() if progress.untried]


def table(sweeps: list[Sweep]) -> Table:
    """One row for each layer."""
    made = Table(box=None, header_style="bold")
    for name in ("structure", "layer"):
        made.add_column(name)
    for name in ("schedules", "trials", "default ms", "tuned ms", "best ms", "tuned / best", "default / best"):
        made.add_column(name, justify="right")
    for row in sweeps:
        made.add_row(
            row.structure, row.layer, str(row.space), str(row.trials),
            *(f"{1e3 * value:.4f}" for value in (row.default, row.tuned, row.best)),
            f"{row.tuned / row.best:.3f}", f"{row.default / row.best:.3f}",
        )  # fmt: skip
    return made


def tuned_network(console: Console) -> dict[str, float]:
    """Milliseconds of ResNet-50 with patterns at 25 %, medians of five: by the analytic model, by the learned one
    without any record, and after tuning."""
    case = next(case for case in CASES if case.network == "resnet50")
    variant = next(variant for variant in case.variants if variant.structure == "pattern")
    imported = pconvgen.load_model(case.pruned(variant), example=(case.image(),))
    records = SWEEPS / "tuned-resnet50.jsonl"
    SWEEPS.mkdir(parents=True, exist_ok=True)
    records.unlink(missing_ok=True)
    learned = replace(experience(get_target("host")), records=())
    started = time.monotonic()
    tuned = tune(
        imported, get_target("host"), get_device("local"), records, Budget(seconds=60 * MINUTES), cores=CORE,
        report=lambda tuner, spent: tuner.trials % 50 or console.print(f"{tuner.trials} trials, {spent:.0%}"),
    )  # fmt: skip
    minutes = (time.monotonic() - started) / 60
    compiled = {
        "analytic_ms": pconvgen.compile(imported, planner=plan_layer),
        "learned_ms": pconvgen.compile(imported, planner=learned),
        "tuned_ms": pconvgen.compile(imported, records=records),
    }
    runs: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(5):
        for name, model in compiled.items():
            result = model.bench(cores=CORE)
            assert result.median_ms is not None
            runs[name].append(result.median_ms)
    found = {name: float(np.median(times)) for name, times in runs.items()}
    found |= {"minutes": minutes, "trials": float(tuned.tuner.trials)}
    console.print(found)
    return found


if __name__ == "__main__":
    typer.run(main)
