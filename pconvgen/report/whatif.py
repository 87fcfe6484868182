"""Latency against density: a table of the points, one of the layers, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pconvgen.report.units import millions, percent

if TYPE_CHECKING:
    from pconvgen.whatif.networks import LayerOutlook, Point


def points_table(points: Sequence[Point]) -> Table:
    """One row for each density."""
    timed = points[0].total_ms is not None
    table = Table(box=None, header_style="bold")
    table.add_column("density", justify="right")
    source = "measured" if points[0].measured_ms is not None else "predicted"
    table.add_column(f"{source} ms" if timed else "cycles (estimate)", justify="right")
    table.add_column("times faster", justify="right")
    for point in points:
        value, first = (point.total_ms, points[0].total_ms) if timed else (point.total_cycles, points[0].total_cycles)
        text = f"{value:.2f}" if timed else millions(value or 0.0)
        table.add_row(percent(point.density), text, f"{(first or 0.0) / (value or 1.0):.2f}x")
    return table


def outlook_table(layers: Sequence[LayerOutlook]) -> Table:
    """One row for each layer: what it gains at the lowest density, and from which density on."""
    table = Table(box=None, header_style="bold")
    table.add_column("layer")
    for name in ("share of the dense network", "times faster", "faster below"):
        table.add_column(name, justify="right")
    table.add_column("note")
    total = sum(layer.dense_cycles for layer in layers)
    for layer in layers:
        gain = layer.dense_cycles / layer.sparse_cycles if layer.sparse_cycles else float("inf")
        table.add_row(
            layer.name,
            percent(layer.dense_cycles / total if total else 0.0),
            f"{gain:.2f}x",
            "never" if layer.even is None else percent(layer.even),
            "" if layer.worth else "not worth pruning",
        )
    return table


def plot(points: Sequence[Point], title: str, path: Path) -> None:
    """Writes the network's latency against density as a picture; in cycles where times are not known."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = points[0].total_ms is not None
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    values = [point.total_ms if timed else point.total_cycles / 1e6 for point in points]
    axes.plot([100 * point.density for point in points], values, "o-")  # type: ignore[arg-type]
    axes.set(xlabel="weights that are kept, %", ylabel="ms" if timed else "M cycles (estimate)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
