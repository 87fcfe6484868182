"""The picture of a run: every kernel under the roofs of the core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.kernels.row import Row
from benchmarks.layers import GROUPS, PRUNINGS
from benchmarks.peak.meters import Roofs
from benchmarks.pictures import COLOURS, save

MARKERS = ("o", "s", "^", "D")


def draw(rows: Sequence[Row], roofs: Roofs, cpu: str, path: Path) -> None:
    """Writes a PNG: FLOP per byte against GFLOP/s of the kernels, packing not included."""
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    axes.set_xscale("log")
    axes.set_yscale("log")
    intensities = [row.intensity for row in rows]
    # Far enough to the left that the roofs of the caches are slopes.
    left = min(*intensities, 0.6 * roofs.fma_gflops / roofs.l2_gbs) / 1.5
    right = max(intensities) * 1.5
    bottom = min(row.gflops for row in rows) / 1.5
    x = np.geomspace(left, right, 200)
    lines = [
        (np.full_like(x, roofs.fma_gflops), "-", f"FMA peak, {roofs.fma_gflops:.0f} GFLOP/s"),
        (np.minimum(x * roofs.l2_gbs, roofs.fma_gflops), "--", f"L2 cache, {roofs.l2_gbs:.0f} GB/s"),
        (np.minimum(x * roofs.memory_gbs, roofs.fma_gflops), ":", f"memory, {roofs.memory_gbs:.0f} GB/s"),
    ]
    roof_handles = [axes.plot(x, y, style, color="0.3", label=label, zorder=1)[0] for y, style, label in lines]
    colours = {pruning.name: colour for pruning, colour in zip(PRUNINGS, COLOURS, strict=True)}
    markers = dict(zip(GROUPS, MARKERS, strict=True))
    for structure, colour in colours.items():
        for group, marker in markers.items():
            found = [row for row in rows if (row.structure, row.group) == (structure, group)]
            axes.scatter(
                [row.intensity for row in found],
                [row.gflops for row in found],
                s=22,
                marker=marker,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.4,
                alpha=0.8,
                zorder=2,
            )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, roofs.fma_gflops * 1.4)
    axes.set_xlabel("FLOP per byte that must be moved once (surviving weights, indices, input, output)")
    axes.set_ylabel("useful GFLOP/s (surviving weights only)")
    axes.set_title(f"Kernels on one core, {cpu}, float32, batch 1, hot caches")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(which="both", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    present = {row.structure for row in rows}, {row.group for row in rows}
    structures = [_dot("o", colour, name) for name, colour in colours.items() if name in present[0]]
    groups = [_dot(marker, "0.5", name) for name, marker in markers.items() if name in present[1]]
    figure.legend(
        handles=[*_titled("roofs", roof_handles), *_titled("structure", structures), *_titled("layers", groups)],
        loc="outside right upper",
        frameon=False,
    )
    save(figure, path, dpi=150)


def _dot(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, label=label)


def _titled(title: str, handles: list[Line2D]) -> list[Line2D]:
    """A line of the legend with no symbol, then the handles."""
    return [Line2D([], [], linestyle="none", label=f"$\\bf{{{title}}}$"), *handles]
