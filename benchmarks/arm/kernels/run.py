"""A run of the count of 3x3 layers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.arm.kernels.count import (
    HALF,
    HALF_COUNTED,
    LAYERS,
    STRUCTURES_COUNTED,
    Row,
    averages,
    count_engine,
    count_kernel,
    random_layer,
)
from benchmarks.arm.kernels.promises import missed, promises
from benchmarks.arm.kernels.tables import average_table, layer_table
from benchmarks.arm.peers import PEERS, TARGET
from pconvgen.devices import static_cycles
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError
from pconvgen.files import write_text


def run(path: Path) -> list[str]:
    """Counts all layers, prints the tables and writes `path`; the promises that are missed or cannot be checked."""
    console = Console(width=130, highlight=False)
    if reason := EmulatedDevice().available():
        raise SystemExit(f"nothing can be counted: {reason}")
    missing: list[str] = []
    estimator = static_cycles.version()
    if estimator is None:
        missing.append("cycle estimates: no llvm-mca with a model of these cores")
    rows: list[Row] = []
    for channels, size in LAYERS:
        layer = random_layer(channels, size)
        with console.status(f"counting {channels}@{size}"):
            rows += [count_kernel(layer, *structure, cycles=bool(estimator)) for structure in STRUCTURES_COUNTED]
            rows += [count_kernel(layer, *structure, bool(estimator), HALF) for structure in HALF_COUNTED]
            for peer in PEERS:
                try:
                    rows.append(count_engine(peer, layer, cycles=bool(estimator)))
                except PconvgenError as error:
                    missing.append(f"{peer.name} on {channels}@{size}: {error}")
    average = averages(rows)
    promised = promises(average)
    console.print(layer_table(rows))
    console.print(average_table(average, promised))
    console.print(f"Counted under qemu. Cycles: static estimates, {estimator or 'none'}; the A76 as Neoverse N1.")
    for line in missing:
        console.print(f"[bold red]MISSING[/] {line}")
    results = {
        "target": TARGET,
        "estimator": estimator,
        "peers": {peer.name: peer.wheels for peer in PEERS},
        "missing": missing,
        "promised": promised,
        "average": average,
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(results, indent=1) + "\n")
    return missed(average, promised)
