"""The smaller tables: pruned layers, targets, checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from pconvgen.report.units import dimensions, percent

if TYPE_CHECKING:
    from pconvgen.devices.doctor import Check
    from pconvgen.devices.tracker import Servers
    from pconvgen.sparsify import PrunedLayer
    from pconvgen.values.target import Target

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


def pruned_table(rows: Sequence[PrunedLayer]) -> Table:
    """What became of each layer of a model that was pruned."""
    table = _table("layer", "op", "weight", "structure", "density", "note")
    for row in rows:
        table.add_row(row.name, row.op, dimensions(row.shape), row.structure, percent(row.density), row.note)
    return table


def target_table(rows: Iterable[tuple[Target, Sequence[str]]]) -> Table:
    """Targets, each with the linkers that this machine has for it, the preferred one first."""
    table = _table("target", "cpu", "isa", "platform", "linker")
    for target, linkers in rows:
        table.add_row(
            target.name, target.cpu, target.core.isa.name, target.platform, linkers[0] if linkers else "not found"
        )
    return table


def server_table(rows: Iterable[Servers]) -> Table:
    """Servers at a tracker, a row for each key."""
    table = _table("key", "servers", "free", "waiting clients", "addresses")
    for row in rows:
        table.add_row(row.key, str(len(row.addresses)), str(row.free), str(row.waiting), ", ".join(row.addresses))
    return table


def check_table(checks: Iterable[Check]) -> Table:
    """What `doctor` found, with what to do about it."""
    table = _table("check", "status", "found", "fix")
    for check in checks:
        table.add_row(check.name, Text(check.status, _COLOURS[check.status]), check.detail, check.remedy or "")
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
