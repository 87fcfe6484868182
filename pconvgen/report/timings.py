"""The table of phases: what compiling took its time for, and how much memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping

from rich import box
from rich.table import Table

LEAST_S = 0.005
"""Phases that take less are left out."""


def timings_table(seconds: Mapping[str, float]) -> Table:
    """One row for each phase, in order, and one for all together; then what memory this process took at most."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("phase")
    table.add_column("s", justify="right")
    for name, took in seconds.items():
        if took >= LEAST_S:
            table.add_row(name, f"{took:.2f}")
    table.add_row("total", f"{sum(seconds.values()):.2f}")
    table.add_row("peak memory, MiB", f"{peak_memory() / (1 << 20):.0f}")
    return table


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept if sys.platform == "darwin" else kept << 10
