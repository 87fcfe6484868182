"""How far predictions are from what is measured."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

import pconvgen
from benchmarks.cores import host_results
from benchmarks.latency.promises import FEW, missed
from benchmarks.latency.records import comparable, sweeps
from benchmarks.measuring import CORE
from benchmarks.models.cases import VGG_LAYERS, case_of
from pconvgen.devices import get_device
from pconvgen.files import replacing, write_json
from pconvgen.latency.evaluate import evaluate as held_out
from pconvgen.latency.evaluate import rank_correlation
from pconvgen.latency.model import fit
from pconvgen.latency.ranker import examples, features_of
from pconvgen.planning.experience import experience
from pconvgen.records.record import Record
from pconvgen.report.console import output
from pconvgen.report.latency import plot
from pconvgen.sparsify import fitting
from pconvgen.targets.presets import get_target
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.task import Task
from pconvgen.whatif.curve import curve
from pconvgen.whatif.layer_curves import pruned_layer
from pconvgen.whatif.measuring import measured
from pconvgen.whatif.networks import whatif

CURVES = (
    (64, 56, 3, "simd_block"), (128, 28, 3, "simd_block"), (256, 14, 3, "pattern"), (128, 28, 3, "pattern"),
    (512, 14, 1, "simd_block"), (256, 28, 1, "unstructured"), (256, 14, 3, "block_punched"),
)  # fmt: skip
"""Channels, height and width, kernel and structure of layers whose curves are measured."""
BETWEEN = 6
"""Densities at which curves are compared with measurements."""
WHATIF = (
    ("resnet50", "simd_block"), ("resnet50", "pattern"), ("mobilenet_v2", "simd_block"), ("mobilenet_v1", "simd_block"),
    ("vgg16_bn", "pattern"),
)  # fmt: skip
DENSITIES = (0.6, 0.3)
"""At which networks are predicted; none of them was learned from."""


def evaluate() -> bool:
    """Predicts what is held out, and compares; whether all promises are kept."""
    console = output()
    records = comparable(get_target("host"))
    rng = np.random.default_rng(0)
    tuned = [record for record in records if not record.model.startswith("layers")]
    few = [tuned[index] for index in sorted(rng.choice(len(tuned), FEW, replace=False).tolist())]
    found: dict[str, Any] = {"records": {}, "device": records[0].device_class, "target": dict(records[0].target)}
    whole = held_out(records, _family)
    for name, result in ((f"{FEW} records", held_out(few)), (f"{len(records)} records", whole)):
        found["records"][name] = {
            "error": result.error, "inside": float(result.inside.mean()), "rank_correlation": result.rank_correlation
        }  # fmt: skip
        console.print(f"{name}: {found['records'][name]}")
    found["ranks"] = _ranks(records, console)
    found["networks"] = {
        name: predicted / measured_ - 1
        for name, (measured_, predicted) in whole.networks.items()
        if not name.startswith("layers")
    }
    console.print(f"networks, all of the family held out: {found['networks']}")
    figures = host_results() / "latency.json"
    figures.parent.mkdir(parents=True, exist_ok=True)
    with replacing(figures.with_suffix(".png")) as temporary:
        plot(whole, records[0].device_class, temporary)
    found["curves"] = _curves(console)
    found["whatif"] = _whatif(console)
    write_json(figures, found)
    broken = missed(found)
    console.print("missed: " + "; ".join(broken) if broken else "all promises kept")
    return not broken


def _ranks(records: list[Record], console: Console) -> dict[str, float]:
    """How well the schedules of layers that were swept are ordered by what was learned from the others."""
    target, model, found = get_target("host"), fit(records), {}
    for layer, swept in sweeps(target).items():
        rows = [features_of(record) for record in swept]
        _, logarithms = examples(swept)
        cycles = [record.predicted_cycles for record in swept]
        times = [time.middle for time in model.predict(rows, cycles)]
        found[layer] = rank_correlation(np.exp(logarithms) * cycles, np.array(times))
    console.print(f"rank correlation over all schedules of a layer: {found}")
    return found


def _curves(console: Console) -> list[dict[str, Any]]:
    """How far lines between measured knots are from what is measured there: the median of some densities."""
    rng, target = np.random.default_rng(0), get_target("host")
    known = experience(target)
    rows = []
    with measured(get_device("local"), target, CORE) as (_, cost):
        for channels, size, kernel, structure in CURVES:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2), nn.ReLU()).eval()
            imported = pconvgen.load_model(model, example=(torch.zeros(1, channels, size, size),))
            ((task,), _) = tasks_of(imported, target, dense=True)
            kind, params, _ = fitting("conv2d", task.layer.fused_op.weight.shape, 1, structure)

            def at(density: float, task: Task = task, kind: str = kind, params: dict[str, int] = params) -> float:
                return cost(pruned_layer(task, kind, params, density, known))

            line = curve(at, 0.05, 1.0)
            errors = [abs(line.at(density) / at(density) - 1) for density in rng.uniform(0.05, 0.95, BETWEEN).tolist()]
            rows.append({
                "layer": f"{channels}@{size} {kernel}x{kernel} {structure}", "knots": len(line.densities),
                "error": float(np.median(errors)), "largest": max(errors),
            })  # fmt: skip
            console.print(rows[-1])
    return rows


def _whatif(console: Console) -> list[dict[str, Any]]:
    """What `whatif` predicts of networks, and what they take."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="pconvgen-latency-") as folder:
        for network, structure in WHATIF:
            case = case_of(network)
            path = Path(folder) / f"{network}.pt2"
            torch.export.save(torch.export.export(case.build(), (case.image(),)), path)
            layers = VGG_LAYERS if network.startswith("vgg") else ()
            predicted = whatif(path, structure, DENSITIES, layers=layers)
            taken = whatif(path, structure, DENSITIES, layers=layers, device=get_device("local"))
            for guess, fact in zip(predicted, taken, strict=True):
                if guess.total_ms is None or fact.total_ms is None:
                    raise SystemExit(
                        "no latency model comes with pconvgen for this machine: run collect and ship first"
                    )
                rows.append({
                    "network": f"{network} {structure}", "density": guess.density, "predicted_ms": guess.total_ms,
                    "measured_ms": fact.total_ms, "error": guess.total_ms / fact.total_ms - 1,
                })  # fmt: skip
                console.print(rows[-1])
    return rows


def _family(record: Record) -> str:
    """The network, however it is pruned."""
    return record.model.split("-")[0]
