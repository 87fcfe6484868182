"""A run of the benchmark of the tuner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from benchmarks.cores import host_results
from benchmarks.layers import PRUNINGS
from benchmarks.tuning.network import tuned_network
from benchmarks.tuning.sweep import Sweep, sweep
from pconvgen.files import write_json
from pconvgen.report.console import output

LAYERS = ((128, 56), (256, 14))
"""Channels, height and width."""
NEAR = 1.03
"""How many times the cost of the best of all that were drawn the tuner's may have."""


def run(network: bool, structures: Sequence[str] | None) -> bool:
    """Measures the tuner on layers of some structures, None for all, and on a network if asked for.

    Returns whether it came near enough to the best of those that were drawn by chance.
    """
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
    folder = host_results()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "tuning.json", found)
    return not missed


def table(sweeps: list[Sweep]) -> Table:
    """One row for each layer."""
    made = Table(box=None, header_style="bold")
    for name in ("structure", "layer"):
        made.add_column(name)
    for name in ("schedules", "drawn", "trials", "default ms", "tuned ms", "best ms", "tuned / best", "default / best",
                 "predictions off"):  # fmt: skip
        made.add_column(name, justify="right")
    for row in sweeps:
        made.add_row(
            row.structure, row.layer, str(row.space), str(row.drawn), str(row.trials),
            *(f"{1e3 * value:.4f}" for value in (row.default, row.tuned, row.best)),
            f"{row.tuned / row.best:.3f}", f"{row.default / row.best:.3f}", f"{row.off:.0%}",
        )  # fmt: skip
    return made
