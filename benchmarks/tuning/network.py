"""The tuner on a whole network."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from rich.console import Console

import pconvgen
from benchmarks.latency.records import FOLDER
from benchmarks.measuring import CORE
from benchmarks.models.cases import case_of
from pconvgen.devices import get_device
from pconvgen.planning.choose import plan_layer
from pconvgen.planning.experience import experience
from pconvgen.targets.presets import get_target
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import TuningBudget

MINUTES = 18.0


def tuned_network(console: Console) -> dict[str, float]:
    """Milliseconds of ResNet-50 with patterns at 25 %, medians of five: by the analytic model, by the learned one
    without any record, and after tuning."""
    case = case_of("resnet50")
    variant = next(variant for variant in case.variants if variant.structure == "pattern")
    imported = pconvgen.load_model(case.pruned(variant), example=(case.image(),))
    records = FOLDER / "tuned-resnet50.jsonl"
    FOLDER.mkdir(parents=True, exist_ok=True)
    records.unlink(missing_ok=True)
    learned = replace(experience(get_target("host")), records=())
    started = time.monotonic()
    tuned = tune(
        imported, get_target("host"), get_device("local"), records, TuningBudget(seconds=60 * MINUTES), cores=CORE,
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
