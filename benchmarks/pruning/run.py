"""A run of the figures on pruning: trains, prunes, measures, judges, prints and writes."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import typer

from benchmarks.cores import host_results
from benchmarks.pruning import accuracy, latency
from benchmarks.pruning.accuracy import TRAINED
from benchmarks.pruning.datasets import Folders, Images, cifar10, digits, image_folder
from benchmarks.pruning.pictures import draw
from benchmarks.pruning.projections import projections
from benchmarks.pruning.promises import missed
from benchmarks.pruning.tables import accuracy_table, latency_table
from benchmarks.pruning.training import Recipe
from pconvgen.files import write_json
from pconvgen.report.console import output, progress

RECIPE = Recipe(dense=24, prune=12, tune=10)
LATENCY_RECIPE = Recipe(dense=16, prune=10, tune=8)


def run(seeds: int, data: str, workers: int) -> list[str]:
    """Measures all three parts and prints what comes out.

    Parameters
    ----------
    seeds: splits and initial weights.
    data: digits, cifar10=FOLDER or images=FOLDER.
    workers: trainings at a time.

    Returns the promises that were missed.
    """
    started = time.monotonic()
    load = loader(data)
    # First, while nothing else computes.
    with progress("pruning against milliseconds") as step:
        curves = Path("out") / "pruning" / "curves.json"
        curves.parent.mkdir(parents=True, exist_ok=True)
        curves.unlink(missing_ok=True)
        larger = partial(digits, scale=2) if data == "digits" else load
        found = latency.outcomes(larger, min(seeds, 3), LATENCY_RECIPE, curves, step)
        timed = []
        for outcome in found:
            timed.append(outcome)
            print(outcome, file=sys.stderr)
    speeds = projections()
    jobs = [(network, seed, RECIPE, load) for network in TRAINED for seed in range(seeds)]
    trained = []
    with progress("training") as step:
        for done in accuracy.outcomes(jobs, workers):
            trained.append(done)
            step(f"{done.network}, seed {done.seed}")
    minutes = (time.monotonic() - started) / 60
    figures = host_results() / "pruning.json"
    plot = figures.with_suffix(".png")
    figures.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        figures,
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
    draw(timed, plot)
    out.print(f"{minutes:.1f} minutes; wrote {figures} and {plot}")
    broken = missed(trained, timed, speeds)
    for text in broken:
        out.print(f"MISSED: {text}")
    return broken


def loader(data: str) -> partial[Images] | partial[Folders]:
    """What loads images by the seed of their split. Raises typer.BadParameter when `data` names none."""
    kind, _, folder = data.partition("=")
    if kind == "digits":
        return partial(digits)
    if kind in ("cifar10", "images") and folder:
        return partial(_any_seed, cifar10 if kind == "cifar10" else image_folder, Path(folder))
    raise typer.BadParameter("digits, cifar10=DIR or images=DIR", param_hint="--data")


def _any_seed(load: object, folder: Path, seed: int) -> Images | Folders:
    """Data with a split of its own, whatever the seed."""
    return load(folder)  # type: ignore[operator]
