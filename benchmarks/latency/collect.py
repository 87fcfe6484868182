"""Measuring what latency is learned from, and writing what comes with pconvgen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pconvgen.schedules.measured
from benchmarks.latency.records import comparable, path_of, read, target_of, whole_networks
from benchmarks.latency.subjects import NETWORKS
from benchmarks.measuring import CORE
from pconvgen.devices import get_device
from pconvgen.files import write_text
from pconvgen.latency.model import fit
from pconvgen.records.store import best
from pconvgen.report.console import output
from pconvgen.tuning.network import measure_network
from pconvgen.tuning.sampler import Sampler
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import Tuner, TuningBudget

MEASURED = Path(pconvgen.schedules.measured.__file__).parent


def collect(names: Sequence[str] | None, on: str) -> bool:
    """Measures layers of networks, of ARM only those that come with pconvgen; False if it was interrupted."""
    console, target = output(), target_of(on)
    device, cores = (get_device("local"), CORE) if target.is_host else (get_device("emulated"), None)
    for network in NETWORKS:
        if network.name not in names if names else device.counts and not network.shipped:
            continue
        imported, records = network.load(), path_of(target, network.name)
        records.parent.mkdir(parents=True, exist_ok=True)
        for strategy, minutes in ((Sampler, 60.0), (Tuner, network.minutes)):
            if not minutes or (strategy is Sampler and device.counts):
                continue
            budget = TuningBudget(seconds=60 * minutes)
            tuned = tune(imported, target, device, records, budget, cores=cores, strategy=strategy)
            if tuned.interrupted:
                return False
            console.print(f"{network.name}: {tuned.tuner.trials} trials by {strategy.__name__}")
    return True


def measure_networks(on: str) -> None:
    """Measures the networks that were tuned as a whole."""
    console, target, device = output(), target_of(on), get_device("local")
    for network in NETWORKS:
        path = path_of(target, network.name)
        if not network.minutes or not path.exists() or whole_networks(target, network.name):
            continue
        whole = measure_network(network.load(), target, device, path, CORE)
        if whole is None:
            console.print(f"{network.name}: not every layer has a record")
        else:
            console.print(f"{network.name}: {1e3 * whole.cost:.2f} ms, layers alone {1e3 * whole.layers:.2f} ms")


def ship(on: str) -> None:
    """Writes what comes with pconvgen: the fastest record of each layer of some networks, and the learned model."""
    target = target_of(on)
    path = MEASURED / f"{target.core.isa.name}-{target.cpu}.jsonl"
    fastest = best(read(target, [network for network in NETWORKS if network.shipped]))
    write_text(path, "".join(record.to_line() for record in fastest.values()))
    output().print(f"{path}: {len(fastest)} records")
    if target.is_host:
        records = comparable(target)
        fit(records, whole_networks(target)).save(path.with_suffix(".json"))
        output().print(f"{path.with_suffix('.json')}: learned from {len(records)}")
