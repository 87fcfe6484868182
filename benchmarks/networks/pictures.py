"""The pictures of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.networks.results import DENSE, OURS, NetworkResult
from benchmarks.pictures import COLOURS, save

PARTS = ("3x3", "1x1", "depthwise", "linear", "packing", "pooling", "other operators", "runtime")


def draw_all(results: Sequence[NetworkResult], folder: Path) -> list[Path]:
    """Writes all pictures and returns their paths."""
    paths = []
    for name, draw in PICTURES.items():
        path = folder / name
        save(draw(results), path, dpi=130)
        paths.append(path)
    return paths


def speed_ups(results: Sequence[NetworkResult]) -> Figure:
    """How many times as fast as the best dense engine each engine is, with the FMA bound of what is pruned."""
    figure, grid = plt.subplots(
        len(results), 1, figsize=(9, 1.2 + 2.3 * len(results)), layout="constrained", squeeze=False
    )
    for result, axes in zip(results, grid[:, 0], strict=True):
        best = result.best_dense()
        rows = sorted((row for row in result.timings if row.threads == 1), key=lambda row: -row.ms)
        scale = best.ms if best else max(row.ms for row in rows)
        bounds = {library.weights: scale / result.bound_ms(library) for library in result.libraries}
        for place, row in enumerate(rows):
            ours = row.engine == OURS
            colour = COLOURS[0] if ours and row.weights != DENSE else COLOURS[1] if ours else "0.6"
            colour = COLOURS[3] if not ours and row.weights != DENSE else colour
            axes.barh(place, scale / row.ms, color=colour)
            axes.text(scale / row.ms, place, f" {row.ms:.1f} ms", va="center", fontsize=7)
            if ours and row.weights in bounds:
                axes.plot([bounds[row.weights]] * 2, [place - 0.45, place + 0.45], color=COLOURS[4], linewidth=2)
        axes.set_yticks(range(len(rows)), [f"{row.engine}, {row.weights}" for row in rows], fontsize=7)
        axes.axvline(1, color="0.3", linewidth=0.8, linestyle=":")
        axes.set_title(f"{result.title}, {result.size}x{result.size}", fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    grid[-1, 0].set_xlabel("times as fast as the best dense engine (one thread, batch 1, float32)")
    names = ("pconvgen, pruned", "pconvgen, not pruned", "DeepSparse, as many non-zeros", "others, not pruned")
    handles = [
        Patch(color=colour, label=name) for colour, name in zip((*COLOURS[:2], COLOURS[3], "0.6"), names, strict=True)
    ]
    handles.append(Patch(color=COLOURS[4], label="FMA bound"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def layer_shares(results: Sequence[NetworkResult]) -> Figure:
    """Share of the FMA peak of every layer, surviving weights only, packing included."""
    shown = [(result, profile) for result in results for profile in result.profiles if profile.layers]
    figure, grid = plt.subplots(
        max(1, len(shown)), 1, figsize=(9, 1 + 1.7 * len(shown)), layout="constrained", squeeze=False, sharey=True
    )
    for (result, profile), axes in zip(shown, grid[:, 0], strict=False):
        for place, layer in enumerate(profile.layers):
            share = 2e-6 * layer.macs / layer.ms / result.peak_gflops[1]
            axes.bar(place, share, color=_colour(layer.kind))
        axes.set_title(f"{result.title}, {profile.weights}: layers in program order", fontsize=9, loc="left")
        axes.set_ylabel("share of peak", fontsize=8)
        axes.axhline(1, color="0.3", linewidth=0.8, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    kinds = {layer.kind for _, profile in shown for layer in profile.layers}
    _legend(figure, sorted(kinds))
    return figure


def time_parts(results: Sequence[NetworkResult]) -> Figure:
    """Where the time of each pruned network goes."""
    shown = [(result, profile) for result in results for profile in result.profiles]
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.4 * len(shown)), layout="constrained")
    found = {part for _, profile in shown for part in profile.parts}
    parts = [*(part for part in PARTS if part in found), *sorted(found - set(PARTS))]
    for place, (_, profile) in enumerate(reversed(shown)):
        total, left = sum(profile.parts.values()), 0.0
        for part in parts:
            share = profile.parts.get(part, 0.0) / total
            axes.barh(place, share, left=left, color=_colour(part))
            left += share
        axes.text(1.01, place, f"{total:.1f} ms", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [f"{result.title}, {profile.weights}" for result, profile in reversed(shown)])
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the time")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, parts)
    return figure


def _colour(kind: str) -> str:
    """Kinds that are not in PARTS are other kernels, such as 7x7 and 5x5."""
    colours = dict(zip(PARTS, (*COLOURS[:6], "0.5", "0.8"), strict=True))
    return colours.get(kind, COLOURS[6])


def _legend(figure: Figure, kinds: Sequence[str]) -> None:
    named = {kind if kind in PARTS else "other kernels": _colour(kind) for kind in kinds}
    handles = [Patch(color=colour, label=name) for name, colour in named.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) or 1, frameon=False, fontsize=8)


PICTURES = {"networks.png": speed_ups, "network_layers.png": layer_shares, "network_parts.png": time_parts}
"""Pictures of a run by their files' names; called with its results."""
