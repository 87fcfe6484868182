"""The tables of the count of 3x3 layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks.arm.kernels.count import CORES, Row
from benchmarks.arm.peers import TARGET


def layer_table(rows: Sequence[Row]) -> Table:
    """Every kernel and engine on every layer."""
    table = Table(title=f"3x3 layers, 462.4 M multiply-accumulates dense, {TARGET}: millions of instructions")
    estimated = [f"{core} Mcycles, est." for core in CORES]
    for name in ("layer", "kernel or engine", "density", "kernel", "pack", "total", "FMA", "bound", *estimated):
        table.add_column(name, justify="left" if name == "kernel or engine" else "right")
    for row in rows:
        counts = (row.kernel, row.pack, row.total, row.vector_fma, row.bound)
        table.add_row(
            row.layer,
            row.name,
            f"{row.density:.1%}",
            *("" if count is None else f"{count / 1e6:.2f}" for count in counts),
            *(f"{row.cycles[core] / 1e6:.1f}" if core in row.cycles else "?" for core in CORES),
        )
    return table


def average_table(average: Mapping[str, float], promised: Mapping[str, float]) -> Table:
    """Averages of the layers, beside what is promised."""
    table = Table(title="Average of the layers, packing included: millions of instructions")
    for name in ("kernel or engine", "average", "promised"):
        table.add_column(name, justify="left" if name == "kernel or engine" else "right")
    for name, count in average.items():
        limit = promised.get(name)
        verdict = "" if limit is None else f"<= {limit / 1e6:.1f} {'ok' if count <= limit else 'MISSED'}"
        table.add_row(name, f"{count / 1e6:.2f}", verdict)
    return table
