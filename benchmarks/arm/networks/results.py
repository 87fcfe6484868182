"""What a count of a network finds out, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.networks.results import OURS


@dataclass(frozen=True)
class Row:
    """One engine on one network, for one inference.

    Attributes
    ----------
    network, title: the network.
    engine: its name.
    weights: DENSE or the name of a variant.
    instructions: all of them.
    vector_fma: vector FMAs among them.
    bound: surviving multiply-accumulates / lanes; 0 where they are not known.
    format: float32 or float16.
    """

    network: str
    title: str
    engine: str
    weights: str
    instructions: int
    vector_fma: int
    bound: int
    format: str = "float32"


def table(rows: Sequence[Row], title: str) -> Table:
    """Every engine on every network."""
    made = Table(title=title, title_justify="left")
    for name in ("network", "format", "engine", "weights", "instructions", "vector FMAs", "bound", "of the best dense"):
        made.add_column(name, justify="right" if len(made.columns) > 3 else "left")
    for row in rows:
        same = [r for r in rows if (r.network, r.format) == (row.network, row.format) and r.engine != OURS]
        best = min((r.instructions for r in same), default=0)
        counts = [f"{value / 1e6:.1f}" for value in (row.instructions, row.vector_fma, row.bound) if value]
        counts += [""] * (3 - len(counts))
        made.add_row(
            row.title, row.format, row.engine, row.weights, *counts, f"{row.instructions / best:.3f}" if best else ""
        )
    return made
