"""The picture of accuracy against time."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt

from benchmarks.pictures import save
from benchmarks.pruning import latency


def draw(timed: list[latency.Outcome], path: Path) -> None:
    """Accuracy against measured milliseconds: a point for each network, lines through the means."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for way, marker in zip(latency.WAYS, "osD^", strict=True):
        mine = [row for row in timed if row.way == way]
        (line,) = axes.plot([row.ms for row in mine], [row.accuracy for row in mine], marker, alpha=0.35)
        parts = [mine] if way == "dense" else [latency.at(timed, way, share) for share in latency.SHARES]
        points = [(mean(row.ms for row in part), mean(row.accuracy for row in part)) for part in parts]
        axes.plot(*zip(*points, strict=True), marker=marker, color=line.get_color(), label=way, markersize=8)
    axes.set_xlabel("milliseconds of one image, measured")
    axes.set_ylabel("accuracy in percent")
    axes.set_title(f"{latency.NETWORK} on digits of 16x16 pixels, {latency.STRUCTURE}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    save(figure, path, dpi=120)
