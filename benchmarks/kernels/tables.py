"""The tables of a kernel benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.engines.engine import DEEPSPARSE
from benchmarks.kernels.against import Comparison, ratios
from benchmarks.kernels.promises import DENSITY, geometric_mean
from benchmarks.kernels.row import Row
from benchmarks.measuring import is_noisy


def row_table(group: str, rows: Sequence[Row], peak: float) -> Table:
    """The rows of one group of layers."""
    table = Table(title=f"{group} layers", title_justify="left")
    for name in ("layer", "structure", "density", "kernel ms", "pack ms", "GFLOP/s", "share", "share with packing"):
        table.add_column(name, justify="left" if name == "structure" else "right")
    for index, row in enumerate(rows):
        if index and row.layer != rows[index - 1].layer:
            table.add_section()
        table.add_row(
            row.layer,
            row.structure,
            f"{row.density:.1%}",
            f"{row.kernel_ms:.4f}",
            f"{row.pack_ms:.4f}" if row.pack_ms else "",
            f"{row.gflops:.1f}",
            f"{row.gflops / peak:.3f}{'~' if row.noisy(peak) else ''}",
            f"{row.packed_gflops / peak:.3f}",
        )
    return table


def comparison_table(found: Sequence[Comparison], peak: float) -> Table:
    """Milliseconds of the peer, and how many times as fast each structure is."""
    structures = list(dict.fromkeys(structure for row in found for structure in row.ours_ms))
    table = Table(
        title=f"times as fast as {DEEPSPARSE.requirements[0]}, one core, {DENSITY:.1%} of the weights, with packing",
        title_justify="left",
    )
    for name in ("layer", f"{DEEPSPARSE.name} ms", *structures):
        table.add_column(name, justify="right")
    for row in found:
        cells = (f"{row.ratio(structure):.2f}" if structure in row.ours_ms else "" for structure in structures)
        mark = "~" if is_noisy(row.peak_gflops, peak) else ""
        table.add_row(row.layer + mark, f"{row.peer_ms:.4f}", *cells)
    table.add_section()
    means = (geometric_mean(ratios(found, structure)) for structure in structures)
    table.add_row("geometric mean", "", *(f"{mean:.2f}" for mean in means))
    return table
