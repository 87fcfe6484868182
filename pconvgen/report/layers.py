"""The layer table: what was decided for each layer, and what that comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table

from pconvgen.arena import ActivationMemory
from pconvgen.report.units import byte_size, dimensions, kib, millions, milliseconds, percent
from pconvgen.values.decision import Decision


def layer_table(decisions: Sequence[Decision]) -> Table:
    """One row for each layer. Times with their intervals where any is known, else the estimate of cycles."""
    timed = any(decision.predicted_ms is not None for decision in decisions)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold")
    for title in ("op", "weight"):
        table.add_column(title, no_wrap=True)
    for title in ("MACs", "density"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("kernel", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("ms (80 % interval)" if timed else "cycles (estimate)", justify="right")
    table.add_column("reason", overflow="fold")
    for row in decisions:
        table.add_row(
            row.name,
            row.op,
            dimensions(row.shape),
            millions(row.macs),
            percent(row.density),
            row.choice,
            kib(row.nbytes) if row.nbytes else "-",
            _cost(row, timed),
            row.reason,
        )
    return table


def summary(
    decisions: Sequence[Decision], library_bytes: int | None = None, memory: ActivationMemory | None = None
) -> str:
    """The total line: layers by structure, MACs, predicted time, memory of the activations and the library's size."""
    if not decisions:
        parts = ["no convolution or linear layers"]
    else:
        structures = Counter(decision.structure for decision in decisions).most_common()
        dense = sum(decision.macs for decision in decisions)
        alive = sum(decision.macs * decision.density for decision in decisions)
        parts = [
            f"total: {len(decisions)} layers ({', '.join(f'{count} {name}' for name, count in structures)})",
            f"{millions(dense)} MACs dense, {millions(alive)} surviving ({percent(alive / dense if dense else 1.0)})",
        ]
        times = [decision.predicted_ms for decision in decisions if decision.predicted_ms is not None]
        if times:
            others = len(decisions) - len(times)
            without = f" without {others} layers of TVM's" if others else ""
            ends = [row.interval_ms for row in decisions if row.interval_ms is not None]
            low, high = (milliseconds(sum(end[side] for end in ends)) for side in (0, 1))
            between = f" ({low} to {high})" if ends else ""
            parts.append(f"predicted {milliseconds(sum(times))} ms{between} on one core{without}")
    if memory is not None:
        parts.append(_memory(memory))
    if library_bytes is not None:
        parts.append(f"library {kib(library_bytes)}")
    return "; ".join(parts)


def _memory(memory: ActivationMemory) -> str:
    least = byte_size(memory.live_nbytes)
    ratio = memory.nbytes / memory.live_nbytes if memory.live_nbytes else 1.0
    return f"activations {byte_size(memory.nbytes)}, largest live set {least}, {ratio:.2f}x"


def _cost(row: Decision, timed: bool) -> str:
    value = row.predicted_ms if timed else row.predicted_cycles
    if value is None:
        return "-"
    if not timed:
        return millions(value)
    interval = row.interval_ms
    return milliseconds(value) + (
        "" if interval is None else f" ({milliseconds(interval[0])}-{milliseconds(interval[1])})"
    )
