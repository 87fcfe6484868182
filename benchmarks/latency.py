"""How well latency is predicted on this machine: `python -m benchmarks.latency collect|networks|ship|evaluate`.

`collect` measures schedules of the layers of the benchmark's networks, at several densities and structures, and of
layers of any size: of each the default and some that are drawn by chance, then what tuning tries. `networks` measures
the tuned ones as a whole. `ship` writes the records and the model that come with pconvgen. `evaluate` learns from these
records with layers and networks held out, ranks the schedules that `benchmarks.tuning` has swept, predicts whole
networks and compares with how long they take, and measures what lies between the knots of latency curves; results go
to benchmarks/results/latency.json and .png.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn

import pconvgen
import pconvgen.schedules.measured
from benchmarks.drawn_layers import DrawnLayers
from benchmarks.network_cases import CASES, VGG_LAYERS, Variant
from pconvgen.devices import get_device
from pconvgen.files import replacing, write_json, write_text
from pconvgen.frontend import Imported
from pconvgen.latency.evaluate import evaluate as held_out
from pconvgen.latency.evaluate import rank_correlation
from pconvgen.latency.model import fit, most
from pconvgen.latency.ranker import examples, features_of
from pconvgen.planning.experience import experience
from pconvgen.records.record import NetworkRecord, Record
from pconvgen.records.store import best, read_all, read_records
from pconvgen.report.console import output
from pconvgen.report.latency import plot
from pconvgen.sparsify import fitting
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.network import measure_network
from pconvgen.tuning.session import tune
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import Budget, Progress, Tuner
from pconvgen.values.target import Target
from pconvgen.whatif.curve import curve
from pconvgen.whatif.layer_curves import pruned_layer
from pconvgen.whatif.measuring import measured
from pconvgen.whatif.networks import whatif

FOLDER = Path("out") / "latency"
"""Where `collect` keeps records, a folder for each instruction set with a file for each network; what is there is gone
on from."""
RESULTS = Path(__file__).parent / "results" / "latency.json"
MEASURED = Path(pconvgen.schedules.measured.__file__).parent
SHIPPED = 1.0
"""Minutes of tuning from which on the records of a network come with pconvgen."""
FEW = 500
"""Records that a device has at least for its promised errors, of networks."""
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
LAYERS = 50
"""Of any size, in each of the models of such layers."""
DRAWN = 6
"""Schedules of each layer that are drawn by chance."""
NEAREST = 60
"""Half of them among so many that are predicted best."""
CORE = (1,)
"""Kernels are built on the others."""

On = Annotated[str, typer.Option("--on", help="host, avx2 for this machine without its AVX-512, or an ARM target.")]

app = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True)
class Pruned:
    """A network of the benchmark, pruned in one way; "dense" for as it is.

    Attributes
    ----------
    network: of `CASES`.
    structure, density: see `Variant`.
    minutes: of tuning, after the schedules that are drawn.
    """

    network: str
    structure: str
    density: float
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """Such as resnet50-pattern-25."""
        kept = "" if self.structure == "dense" else f"-{round(100 * self.density)}"
        return f"{self.network}-{self.structure}{kept}"

    @property
    def shipped(self) -> bool:
        """Whether its records come with pconvgen."""
        return self.minutes >= SHIPPED

    def load(self) -> Imported:
        """The network with its name."""
        case = next(case for case in CASES if case.network == self.network)
        layers = VGG_LAYERS if self.network.startswith("vgg") else ()
        dense = self.structure == "dense"
        model = case.build() if dense else case.pruned(Variant(self.structure, self.density, layers))
        return replace(pconvgen.load_model(model, example=(case.image(),)), source=self.name)


@dataclass(frozen=True)
class Drawn:
    """Layers of any size.

    Attributes
    ----------
    seed: of what is drawn.
    minutes: of tuning.
    """

    seed: int
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """Such as layers-0."""
        return f"layers-{self.seed}"

    @property
    def shipped(self) -> bool:
        """Whether its records come with pconvgen."""
        return False

    def load(self) -> Imported:
        """The layers as a model."""
        model = DrawnLayers(LAYERS, self.seed).eval()
        return replace(pconvgen.load_model(model, example=tuple(model.inputs)), source=self.name)


NETWORKS: tuple[Pruned | Drawn, ...] = (
    Pruned("resnet50", "pattern", 0.25, 2),
    Pruned("resnet50", "simd_block", 0.25, 2),
    Pruned("vgg16_bn", "simd_block", 0.125, 2),
    Pruned("vgg16_bn", "pattern", 0.125, 2),
    Pruned("mobilenet_v2", "simd_block", 0.4, 1),
    Pruned("mobilenet_v1", "simd_block", 0.4, 1),
    Pruned("efficientnet_b0", "simd_block", 0.4, 1),
    Pruned("yolo", "simd_block", 0.25, 1),
    Pruned("unet", "simd_block", 0.25, 1),
    Pruned("resnet50", "dense", 1.0, 0.5),
    Pruned("mobilenet_v1", "dense", 1.0, 0.5),
    Pruned("resnet50", "unstructured", 0.25, 0.5),
    Pruned("resnet50", "block_punched", 0.25),
    Pruned("resnet50", "simd_block", 0.5),
    Pruned("resnet50", "pattern", 0.125),
    Pruned("vgg16_bn", "simd_block", 0.5),
    Pruned("mobilenet_v2", "simd_block", 0.2),
    Pruned("unet", "pattern", 0.25),
    Drawn(0),
    Drawn(1),
    Drawn(2),
)
"""What is learned from."""


class Sampler(Tuner):
    """Tries the default schedule of each layer and some that are drawn by chance."""

    def _propose(self, count: int, building: Sequence[Progress]) -> list[tuple[Progress, Choice, dict[str, Any]]]:
        for progress in self.progress.values():
            tried = len(progress.task.choices) - len(progress.untried)
            if progress.untried and tried <= DRAWN:
                among = len(progress.untried) if tried % 2 else min(NEAREST, len(progress.untried))
                index = 0 if not tried else int(self._rng.integers(among))
                return [(progress, *progress.untried.pop(index))]
        return []


@app.command()
def collect(
    names: Annotated[list[str] | None, typer.Argument(help="Only these, e.g. resnet50-pattern-25 or layers-0.")] = None,
    on: On = "host",
) -> None:
    """Measure; about an hour. An interrupted run is gone on from. For ARM, the layers that come with pconvgen only."""
    console, target = output(), _target(on)
    device, cores = (get_device("local"), CORE) if target.is_host else (get_device("emulated"), None)
    (FOLDER / target.core.name).mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        if network.name not in names if names else device.counts and not network.shipped:
            continue
        imported, records = network.load(), FOLDER / target.core.name / f"{network.name}.jsonl"
        for strategy, minutes in ((Sampler, 60.0), (Tuner, network.minutes)):
            if not minutes or (strategy is Sampler and device.counts):
                continue
            budget = Budget(seconds=60 * minutes)
            tuned = tune(imported, target, device, records, budget, cores=cores, strategy=strategy)
            if tuned.interrupted:
                raise typer.Exit(130)
            console.print(f"{network.name}: {tuned.tuner.trials} trials by {strategy.__name__}")


@app.command()
def networks(on: On = "host") -> None:
    """Measure the networks that were tuned as a whole."""
    console, target, device = output(), _target(on), get_device("local")
    for network in NETWORKS:
        path = FOLDER / target.core.name / f"{network.name}.jsonl"
        if not network.minutes or not path.exists() or _networks(target, network.name):
            continue
        whole = measure_network(network.load(), target, device, path, CORE)
        if whole is None:
            console.print(f"{network.name}: not every layer has a record")
        else:
            console.print(f"{network.name}: {1e3 * whole.cost:.2f} ms, layers alone {1e3 * whole.layers:.2f} ms")


@app.command()
def evaluate() -> None:
    """Predict what is held out, and compare; half an hour."""
    console = output()
    records = _records(get_target("host"))
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
    with replacing(RESULTS.with_suffix(".png")) as temporary:
        plot(whole, records[0].device_class, temporary)
    found["curves"] = _curves(console)
    found["whatif"] = _whatif(console)
    write_json(RESULTS, found)
    missed = _missed(found)
    console.print("missed: " + "; ".join(missed) if missed else "all promises kept")
    raise typer.Exit(bool(missed))


def _missed(found: dict[str, Any]) -> list[str]:
    """What is further off than promised."""
    few = found["records"][f"{FEW} records"]
    checks = [
        ("median error of layers", few["error"], 0.08),
        *((f"1 - rank correlation of {name}", 1 - value, 0.1) for name, value in found["ranks"].items()),
        *((f"network {name}", abs(error), 0.15) for name, error in found["networks"].items()),
        *((f"curves of {row['layer']}", row["error"], 0.05) for row in found["curves"]),
        *((f"whatif {row['network']} at {row['density']:g}", abs(row["error"]), 0.10) for row in found["whatif"]),
    ]  # fmt: skip
    return [f"{name}: {value:.1%}, promised {most:.0%}" for name, value, most in checks if value > most]


def _ranks(records: list[Record], console: Console) -> dict[str, float]:
    """How well the schedules of layers that were swept are ordered by what was learned from the others."""
    target, model, found = get_target("host"), fit(records), {}
    for path in sorted((FOLDER / target.core.name).glob("sweep-*.jsonl")):
        swept = [record for record in read_records(path) if record.cost is not None]
        rows, (_, logarithms) = [features_of(record) for record in swept], examples(swept)
        cycles = [record.predicted_cycles for record in swept]
        times = [time.middle for time in model.predict(rows, cycles)]
        found[path.stem.removeprefix("sweep-")] = rank_correlation(np.exp(logarithms) * cycles, np.array(times))
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
            kind, params, _ = fitting("conv2d", task.layer.site.weight.shape, 1, structure)

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
            case = next(case for case in CASES if case.network == network)
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


@app.command()
def ship(on: On = "host") -> None:
    """Write what comes with pconvgen: the fastest record of each layer of some networks, and the learned model."""
    target = _target(on)
    path = MEASURED / f"{target.core.name}-{target.cpu}.jsonl"
    fastest = best(_read(target, [network for network in NETWORKS if network.shipped]))
    write_text(path, "".join(record.to_line() for record in fastest.values()))
    output().print(f"{path}: {len(fastest)} records")
    if target.is_host:
        records = _records(target)
        fit(records, _networks(target)).save(path.with_suffix(".json"))
        output().print(f"{path.with_suffix('.json')}: learned from {len(records)}")


def _target(name: str) -> Target:
    """The target of that name; "avx2" for this machine's as it is where a hypervisor masks AVX-512."""
    return replace(get_target("host"), isa="avx2", features=("-avx512f",)) if name == "avx2" else get_target(name)


def _read(target: Target, networks: Iterable[Pruned | Drawn]) -> list[Record]:
    """All records of some networks."""
    paths = [FOLDER / target.core.name / f"{network.name}.jsonl" for network in networks]
    return [record for path in paths if path.exists() for record in read_records(path)]


def _records(target: Target) -> list[Record]:
    return most(_read(target, NETWORKS))


def _networks(target: Target, name: str = "*") -> list[NetworkRecord]:
    paths = sorted((FOLDER / target.core.name).glob(f"{name}.jsonl"))
    return [record for path in paths for record in read_all(path) if isinstance(record, NetworkRecord)]


def _family(record: Record) -> str:
    """The network, however it is pruned."""
    return record.model.split("-")[0]


if __name__ == "__main__":
    app()
