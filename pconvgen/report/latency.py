"""Predicted against measured latency: a picture with the error by the kind of layer, and a table of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pconvgen.report.units import millions, milliseconds, percent

if TYPE_CHECKING:
    from pconvgen.latency.evaluate import Evaluation
    from pconvgen.values.decision import Decision
    from pconvgen.whatif.layer_curves import LayerCurve


def kind(workload: Mapping[str, Any]) -> str:
    """The kind of a layer, as pictures name it."""
    if workload["groups"] > 1:
        return "grouped"
    if (workload["height"], workload["width"]) == (1, 1):
        return "linear"
    stride = "" if workload["stride"] == [1, 1] else f", stride {workload['stride'][0]}"
    return f"{workload['kernel'][0]}x{workload['kernel'][1]}{stride}"


def layers_table(decisions: Sequence[Decision], together: float) -> Table:
    """Layers that have a time, with its interval; their sum, and the network: `together` times that."""
    table = Table(box=None, header_style="bold")
    table.add_column("layer")
    for name in ("ms", "10 %", "90 %"):
        table.add_column(name, justify="right")
    rows = [
        (row.name, (row.predicted_ms, *row.interval_ms))
        for row in decisions
        if row.predicted_ms is not None and row.interval_ms is not None
    ]
    for name, values in rows:
        table.add_row(name, *map(milliseconds, values))
    sums = [sum(values[column] for _, values in rows) for column in range(3)]
    table.add_row("sum", *map(milliseconds, sums))
    table.add_row("network", *(milliseconds(together * value) for value in sums))
    return table


def curves_table(curves: Sequence[LayerCurve], unit: str) -> Table:
    """One row for each curve: the cost without zeros, and how many times less it is at some densities."""
    densities = (0.5, 0.25, 0.125)
    table = Table(box=None, header_style="bold")
    table.add_column("layer")
    table.add_column("structure")
    for name in ("x", "dense, ms" if unit == "seconds" else f"dense, {unit}", "knots"):
        table.add_column(name, justify="right")
    for density in densities:
        table.add_column(f"at {percent(density)}", justify="right")
    for row in curves:
        first = row.curve.densities[0]
        gains = [f"{row.dense / row.curve.at(at):.2f}x" if first <= at else "" for at in densities]
        dense = milliseconds(1e3 * row.dense) if unit == "seconds" else millions(row.dense)
        table.add_row(row.name, row.structure, str(row.count), dense, str(len(row.curve.densities)), *gains)
    return table


def plot_curves(curves: Sequence[LayerCurve], unit: str, title: str, path: Path, most: int = 12) -> None:
    """Writes a picture of the curves of the layers that take most, each by its cost without zeros."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for row in sorted(curves, key=lambda row: -row.count * row.dense)[:most]:
        densities = [100 * density for density in row.curve.densities]
        axes.plot(densities, [cost / row.dense for cost in row.curve.costs], ".-", label=row.name)
    axes.set(xlabel="weights that are kept, %", ylabel=f"{unit}, by those without zeros", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot(evaluation: Evaluation, title: str, path: Path) -> None:
    """Writes the picture: predictions for layers that were held out."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    kinds = [kind(record.workload) for record in evaluation.records]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    names = sorted(set(kinds))
    for name in names:
        mine = [index for index, other in enumerate(kinds) if other == name]
        left.loglog(1e3 * evaluation.measured[mine], 1e3 * evaluation.predicted[mine], ".", label=name, alpha=0.6)
    ends = [1e3 * evaluation.measured.min(), 1e3 * evaluation.measured.max()]
    left.loglog(ends, ends, "k-", linewidth=0.8)
    left.set(xlabel="measured ms", ylabel="predicted ms, layer held out", title=title)
    left.legend(fontsize=8)
    error = np.abs(evaluation.predicted / evaluation.measured - 1)
    by_kind = [100 * error[[index for index, other in enumerate(kinds) if other == name]] for name in names]
    right.boxplot(by_kind, tick_labels=names, showfliers=False)
    right.set(ylabel="absolute error, %", title="error by kind of layer")
    right.tick_params(axis="x", rotation=30)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
