"""Tables of tuning: what a run has found so far, and what a file of records holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from pconvgen.devices.units import cost_text

if TYPE_CHECKING:
    from pconvgen.records.record import Record
    from pconvgen.tuning.tuner import Tuner


def progress_table(tuner: Tuner, rows: int | None = None) -> Table:
    """The tasks, those with the largest share of the network's cost first; at most `rows` of them."""
    table = Table(box=None, header_style="bold")
    table.add_column("layer")
    for name in ("x", "default", "best", "gain", "trials", "left", "failed"):
        table.add_column(name, justify="right")
    found = sorted(tuner.progress.values(), key=lambda p: -p.task.count * (p.best or 0.0))
    for progress in found[:rows]:
        gain = progress.default / progress.best if progress.default and progress.best else None
        table.add_row(
            progress.task.name,
            str(progress.task.count),
            _cost(progress.default, tuner.unit),
            _cost(progress.best, tuner.unit),
            "" if gain is None else f"{gain:.3f}x",
            str(len(progress.costs)),
            str(len(progress.untried)),
            ", ".join(f"{count} {kind}" for kind, count in progress.failures.items()),
        )
    return table


def summary(tuner: Tuner) -> str:
    """The network's layers with default schedules, and with the best that were found."""
    measured = [p for p in tuner.progress.values() if p.default is not None and p.best is not None]
    default = sum(p.task.count * (p.default or 0.0) for p in measured)
    best = sum(p.task.count * (p.best or 0.0) for p in measured)
    layers = sum(p.task.count for p in measured)
    if not best:
        return "nothing was measured"
    return (
        f"{layers} layers: {cost_text(default, tuner.unit)} with default schedules, {cost_text(best, tuner.unit)} with"
        f" the best found ({default / best:.3f}x); {tuner.trials} trials; {tuner.doubt}"
    )


def _cost(value: float | None, unit: str) -> str:
    return "-" if value is None else cost_text(value, unit)


def statistics_table(records: Iterable[Record]) -> Table:
    """For each target and device class: tasks, trials, failures by kind."""
    trials: Counter[tuple[str, str]] = Counter()
    failures: dict[tuple[str, str], Counter[str]] = {}
    tasks: dict[tuple[str, str], set[str]] = {}
    for record in records:
        trials[record.where] += 1
        tasks.setdefault(record.where, set()).add(record.task)
        if record.failure is not None:
            failures.setdefault(record.where, Counter())[record.failure.kind] += 1
    table = Table(box=None, header_style="bold")
    for name in ("target", "device"):
        table.add_column(name)
    for name in ("layers", "trials"):
        table.add_column(name, justify="right")
    table.add_column("failed")
    for where, count in sorted(trials.items()):
        failed = failures.get(where, Counter())
        text = ", ".join(f"{number} {kind}" for kind, number in sorted(failed.items()))
        table.add_row(*where, str(len(tasks[where])), str(count), text or "none")
    return table


def best_table(records: Iterable[Record]) -> Table:
    """One row for each layer's fastest record."""
    table = Table(box=None, header_style="bold")
    for name in ("layer", "weight", "density", "device", "cost", "schedule"):
        table.add_column(name)
    for record in records:
        w, weight = record.workload, record.weight
        kernel = "x".join(map(str, w["kernel"]))
        shape = f"{w['in_channels']}x{w['height']}x{w['width']} -> {w['out_channels']}, {kernel}"
        names = ("structure", "params", "max_group", "template")
        schedule = " ".join(f"{key}={value}" for key, value in record.trial.items() if key not in names)
        table.add_row(
            shape,
            weight["structure"],
            f"{weight['nonzeros'] / weight['size']:.3f}",
            record.device_class,
            _cost(record.cost, record.unit),
            f"{record.trial['template']}: {record.trial['structure']} {schedule}",
        )
    return table
