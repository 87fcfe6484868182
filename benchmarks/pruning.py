"""How accurate pruned networks are, and how fast: `make bench-pruning`.

Networks are trained, pruned and fine-tuned on scikit-learn's digits, several times with other splits and weights. The
first part compares ADMM with one-shot magnitude at equal densities; the second prunes against budgets of milliseconds
on this machine, beside uniform densities and filter pruning, and measures what comes out; the third times projections.
Results go to benchmarks/results/pruning.json and pruning.png.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import torch
import typer
from rich.table import Table
from torch import nn

from benchmarks import pruning_accuracy, pruning_latency
from benchmarks.datasets import Folders, Images, cifar10, digits, image_folder
from benchmarks.pruning_accuracy import CASES, COMPARED, paired
from benchmarks.pruning_train import Recipe
from pconvgen.files import write_json
from pconvgen.pruning import ADMMPruner, Density, Macs
from pconvgen.report.console import output, progress

RESULTS = Path(__file__).parent / "results" / "pruning.json"
PLOT = RESULTS.with_suffix(".png")
RECIPE = Recipe(dense=24, prune=12, tune=10)
LATENCY_RECIPE = Recipe(dense=16, prune=10, tune=8)
TRAINED = ("mobilenet_v2", "resnet", "vgg")
"""Those that take longest first, so that workers end together."""
LOSS = {0.25: 0.5, 0.125: 1.0}
"""Points that accuracy may be below that of the dense network, by density."""
PROMISED = ("pattern", "simd_block", "block_punched")
WEIGHTS_S = 1.0
"""For a step of 25 million weights."""


def main(
    seeds: Annotated[int, typer.Option(metavar="N", help="Splits and initial weights.", min=1)] = 5,
    data: Annotated[
        str, typer.Option(metavar="digits|cifar10=DIR|images=DIR", help="DIR of CIFAR-10, or with train and val.")
    ] = "digits",
    workers: Annotated[int, typer.Option(metavar="N", help="Trainings at a time.", min=1)] = 2,
) -> None:
    """Measure all three parts and say which promises they miss."""
    started = time.monotonic()
    load = _loader(data)
    # First, while nothing else computes.
    with progress("pruning against milliseconds") as step:
        curves = Path("out") / "pruning" / "curves.json"
        curves.parent.mkdir(parents=True, exist_ok=True)
        curves.unlink(missing_ok=True)
        larger = partial(digits, scale=2) if data == "digits" else load
        found = pruning_latency.outcomes(larger, min(seeds, 3), LATENCY_RECIPE, curves, step)
        timed = []
        for outcome in found:
            timed.append(outcome)
            print(outcome, file=sys.stderr)
    speeds = projections()
    jobs = [(network, seed, RECIPE, load) for network in TRAINED for seed in range(seeds)]
    trained = []
    with progress("training") as step:
        for done in pruning_accuracy.outcomes(jobs, workers):
            trained.append(done)
            step(f"{done.network}, seed {done.seed}")
    minutes = (time.monotonic() - started) / 60
    write_json(
        RESULTS,
        {
            "data": data,
            "accuracy": [asdict(row) for row in trained],
            "latency": [asdict(row) for row in timed],
            "projection_s": speeds,
            "minutes": minutes,
        },
    )
    out = output()
    out.print(accuracy_table(trained))
    out.print(latency_table(timed))
    for name, seconds in speeds.items():
        out.print(f"an ADMM step of 25.7 M weights, {name}: {seconds:.2f} s")
    plot(timed)
    out.print(f"{minutes:.1f} minutes; wrote {RESULTS} and {PLOT}")
    missed = promises(trained, timed, speeds)
    for text in missed:
        out.print(f"MISSED: {text}")
    sys.exit(bool(missed))


def _loader(data: str) -> partial[Images] | partial[Folders]:
    kind, _, folder = data.partition("=")
    if kind == "digits":
        return partial(digits)
    if kind in ("cifar10", "images") and folder:
        return partial(_any_seed, cifar10 if kind == "cifar10" else image_folder, Path(folder))
    raise typer.BadParameter("digits, cifar10=DIR or images=DIR", param_hint="--data")


def _any_seed(load: object, folder: Path, seed: int) -> Images | Folders:
    """Data with a split of its own, whatever the seed."""
    return load(folder)  # type: ignore[operator]


class Large(nn.Module):
    """25.7 million weights, of 3x3 and 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 512, 3)
        self.wide = nn.Sequential(*(nn.Conv2d(512, 512, 3, padding=1) for _ in range(8)))
        self.deep = nn.Sequential(nn.Conv2d(512, 1024, 1), *(nn.Conv2d(1024, 1024, 1) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deep(self.wide(self.stem(x)))


def projections() -> dict[str, float]:
    """Seconds of an ADMM step of a large network, for each structure and kind of allocation; the best of three."""
    model, found = Large(), {}
    for structure in ("pattern", "simd_block", "block_punched", "unstructured", "filter"):
        for name, budget in (("uniform", Density(0.125)), ("allocated", Macs(2e8))):
            pruner = ADMMPruner(model, (torch.zeros(1, 3, 6, 6),), structure, budget)
            pruner.penalty()
            times = []
            for epoch in range(3):
                started = time.perf_counter()
                pruner.step(epoch)
                times.append(time.perf_counter() - started)
            found[f"{structure}, {name}"] = min(times)
    return found


def promises(
    trained: list[pruning_accuracy.Outcome], timed: list[pruning_latency.Outcome], speeds: dict[str, float]
) -> list[str]:
    """What was promised and is not so."""
    missed = []
    for network in TRAINED:
        for structure, density in CASES:
            mine = [o for o in trained if (o.network, o.structure, o.density) == (network, structure, density)]
            loss = mean(o.dense - o.admm for o in mine)
            if structure in PROMISED and loss > LOSS[density]:
                missed.append(f"{network}, {structure} {density}: {loss:.2f} points below dense, {LOSS[density]} asked")
    for structure, density in CASES:
        mine = [o for o in trained if (o.structure, o.density) == (structure, density)]
        if density == COMPARED and paired(mine, "one_shot")[0] <= 0:
            missed.append(f"{structure} {density}: ADMM is not better than one-shot with the same fine-tuning")
    for row in timed:
        if row.way == "ALCS" and not 0.95 <= row.ms / row.budget_ms <= 1.05:
            missed.append(f"seed {row.seed}: {row.ms / row.budget_ms:.3f} of the budget, 0.95 to 1.05 asked")
    for share in pruning_latency.SHARES:
        ways = {way: mean(_at(timed, way, share)) for way in ("ALCS", "uniform")}
        if ways["ALCS"] < ways["uniform"]:
            missed.append(f"at {share} of the time: ALCS {ways['ALCS']:.2f} %, uniform {ways['uniform']:.2f} %")
    missed += [f"an ADMM step, {name}: {s:.2f} s" for name, s in speeds.items() if s > WEIGHTS_S]
    return missed


def _at(timed: list[pruning_latency.Outcome], way: str, share: float) -> list[float]:
    """Accuracies at a budget."""
    dense = {row.seed: row.ms for row in timed if row.way == "dense"}
    return [r.accuracy for r in timed if r.way == way and abs(r.budget_ms / dense[r.seed] - share) < 1e-6]


def accuracy_table(trained: list[pruning_accuracy.Outcome]) -> Table:
    """Means over seeds, with their spread."""
    table = Table(title="accuracy in percent: mean and standard deviation over seeds")
    for name in ("network", "structure", "kept", "dense", "ADMM, hard", "ADMM", "one-shot, hard", "one-shot", "longer"):
        table.add_column(name, justify="left" if name in ("network", "structure") else "right")
    for network in TRAINED:
        for structure, density in CASES:
            mine = [o for o in trained if (o.network, o.structure, o.density) == (network, structure, density)]
            keys = ("dense", "hard", "admm", "hard_one_shot", "one_shot", "one_shot_long")
            cells = ["" if getattr(mine[0], key) is None else _spread([getattr(o, key) for o in mine]) for key in keys]
            table.add_row(network, structure, f"{density:.1%}", *cells)
    for structure, density in CASES:
        if density != COMPARED:
            continue
        mine = [o for o in trained if (o.structure, o.density) == (structure, density)]
        short, long = (paired(mine, key) for key in ("one_shot", "one_shot_long"))
        cells = [f"{short[0]:+.2f} ± {short[1]:.2f}", f"{long[0]:+.2f} ± {long[1]:.2f}"]
        table.add_row("all: ADMM beats it by", structure, f"{density:.1%}", "", "", "", "", *cells)
    return table


def latency_table(timed: list[pruning_latency.Outcome]) -> Table:
    """One row for each network that was measured."""
    table = Table(title=f"{pruning_latency.NETWORK}, {pruning_latency.STRUCTURE}: budgets of milliseconds")
    for name in ("seed", "way", "budget ms", "ms", "of the budget", "accuracy %"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for row in timed:
        cells = (f"{row.budget_ms:.4f}", f"{row.ms:.4f}", f"{row.ms / row.budget_ms:.3f}", f"{row.accuracy:.2f}")
        table.add_row(str(row.seed), row.way, *cells)
    return table


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def plot(timed: list[pruning_latency.Outcome]) -> None:
    """Accuracy against measured milliseconds: a point for each network, lines through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for way, marker in zip(pruning_latency.WAYS, "osD^", strict=True):
        mine = [row for row in timed if row.way == way]
        (line,) = axes.plot([row.ms for row in mine], [row.accuracy for row in mine], marker, alpha=0.35)
        shares = (None,) if way == "dense" else pruning_latency.SHARES
        dense = {row.seed: row.ms for row in timed if row.way == "dense"}
        points = []
        for share in shares:
            part = [r for r in mine if share is None or abs(r.budget_ms / dense[r.seed] - share) < 1e-6]
            points.append((mean(r.ms for r in part), mean(r.accuracy for r in part)))
        axes.plot(*zip(*points, strict=True), marker=marker, color=line.get_color(), label=way, markersize=8)
    axes.set_xlabel("milliseconds of one image, measured")
    axes.set_ylabel("accuracy in percent")
    axes.set_title(f"{pruning_latency.NETWORK} on digits of 16x16 pixels, {pruning_latency.STRUCTURE}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    typer.run(main)
