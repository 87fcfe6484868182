"""The tables of the figures on pruning."""

from __future__ import annotations

from statistics import mean, stdev

from rich.table import Table

from benchmarks.pruning import accuracy, latency
from benchmarks.pruning.accuracy import CASES, COMPARED, TRAINED, paired


def accuracy_table(trained: list[accuracy.Outcome]) -> Table:
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


def latency_table(timed: list[latency.Outcome]) -> Table:
    """One row for each network that was measured."""
    table = Table(title=f"{latency.NETWORK}, {latency.STRUCTURE}: budgets of milliseconds")
    for name in ("seed", "way", "budget ms", "ms", "of the budget", "accuracy %"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for row in timed:
        cells = (f"{row.budget_ms:.4f}", f"{row.ms:.4f}", f"{row.ms / row.budget_ms:.3f}", f"{row.accuracy:.2f}")
        table.add_row(str(row.seed), row.way, *cells)
    return table


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
