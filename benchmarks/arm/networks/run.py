"""A run of the count of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.arm.networks.count import SIZE, cases, count
from benchmarks.arm.networks.promises import PROMISES, judge
from benchmarks.arm.networks.results import Row, table
from benchmarks.arm.peers import FORMATS, TARGET
from benchmarks.models.exported import quiet_exporter
from benchmarks.promises import verdict_table
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.files import write_json
from pconvgen.report.console import output


def run(networks: Sequence[str] | None, path: Path) -> int:
    """Counts networks, all that are promised with None, prints the table and writes `path`.

    Returns how many promises were missed.

    Raises
    ------
    PconvgenError: pconvgen's own library fails or computes something else than PyTorch.
    """
    if reason := EmulatedDevice().available():
        raise SystemExit(f"nothing can be counted: {reason}")
    rows: list[Row] = []
    missing: list[str] = []
    errors = Console(stderr=True, highlight=False)
    with errors.status("") as status, quiet_exporter():
        for case in cases(networks):
            counted = count(case, status.update if errors.is_terminal else errors.print)
            rows += counted[0]
            missing += counted[1]
    console = output()
    console.print(table(rows, f"networks at {SIZE}x{SIZE}, {TARGET}, one inference: millions of instructions"))
    for line in missing:
        console.print(f"MISSING {line}", style="bold red")
    verdicts = [judge(promise, rows, [peer.name for peer in FORMATS[promise.format]]) for promise in PROMISES]
    console.print(verdict_table(verdicts))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "target": TARGET,
            "size": SIZE,
            "peers": {peer.name: peer.wheels for peers in FORMATS.values() for peer in peers},
            "missing": missing,
            "rows": [asdict(row) for row in rows],
            "promises": [asdict(verdict) for verdict in verdicts],
        },
    )
    return sum(verdict.missed for verdict in verdicts)
