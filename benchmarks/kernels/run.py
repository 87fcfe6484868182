"""A run of the kernel benchmark: measures what passes the filters, judges, prints and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.command import FILTERED, progress_bar
from benchmarks.cores import described, host_results
from benchmarks.engines.engine import DEEPSPARSE
from benchmarks.kernels import deepsparse
from benchmarks.kernels.against import Comparison, compare, ratios
from benchmarks.kernels.filters import Case, Filters, text
from benchmarks.kernels.promises import DENSITY, PEER_PROMISES, PROMISES, judge, judge_peer
from benchmarks.kernels.roofline import draw
from benchmarks.kernels.row import Row, measure
from benchmarks.kernels.tables import comparison_table, row_table
from benchmarks.layers import GROUPS, Layer, Pruning, layers
from benchmarks.measuring import is_noisy
from benchmarks.peak.meters import Meter, Roofs, fma_meter, l2_meter, memory_meter, roofs
from benchmarks.promises import Verdict, verdict_table
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import check_writable, write_json
from pconvgen.report.console import output
from pconvgen.targets.presets import get_target
from pconvgen.values.target import Target

AGAIN = 0.3
"""Share of the time so far that rows without a quiet round may take again."""


@dataclass(frozen=True)
class Results:
    """All that a run finds out.

    Attributes
    ----------
    target: the machine.
    roofs: what its core can do.
    rows: our kernels.
    comparisons: the same layers in the peer.
    missing: why there are no comparisons; empty when there are.
    interrupted: whether Ctrl-C ended it before all was measured.
    """

    target: Target
    roofs: Roofs
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    missing: str
    interrupted: bool = False

    def verdicts(self) -> list[Verdict]:
        """Every promise, judged."""
        every = layers()
        found = [judge(promise, self.rows, every, self.roofs.fma_gflops) for promise in PROMISES]
        for promise in PEER_PROMISES:
            verdict = judge_peer(promise, ratios(self.comparisons, promise.structure), every, DEEPSPARSE.name)
            found.append(Verdict(verdict.text, "", f"missing: {self.missing}") if self.missing else verdict)
        return found


def run(filters: Filters, against: bool, folder: Path | None) -> int:
    """Measures what passes the filters, against the peer if asked for, and writes to `folder`, None for the core's.

    Returns how many promises were missed. What was measured before Ctrl-C is printed, and written to FILTERED.

    Raises
    ------
    UsageError: nothing passes, or the folder cannot be made.
    PconvgenError: the files cannot be written.
    """
    todo = filters.cases()
    folder = folder or host_results()
    _make(folder)
    for file in _files(folder):
        check_writable(file)
    results = measured(todo, against)
    if not results.interrupted:
        return report(results, folder)
    if results.rows:
        _make(FILTERED)
        report(results, FILTERED)
    raise KeyboardInterrupt


def measured(todo: Sequence[Case], against: bool) -> Results:
    """Measures `todo`, and against the peer if asked for."""
    # TVM's runtime reads this once, before its first parallel loop.
    os.environ["TVM_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    target = get_target("host")
    meters = peak, *_ = fma_meter(target), l2_meter(target), memory_meter(target)
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    missing, interrupted = "" if against else "not asked for", False
    with progress_bar(Console(stderr=True)) as progress:
        roofs(*meters)
        try:
            measure_all(todo, target, peak, progress, rows)
            if against:
                comparisons = compare_all(todo, target, peak, progress)
        except PconvgenError as error:
            missing = str(error)
        except KeyboardInterrupt:
            missing, interrupted = "interrupted", True
        return Results(target, roofs(*meters), rows, comparisons, missing, interrupted)


def measure_all(todo: Sequence[Case], target: Target, peak: Meter, progress: Progress, rows: list[Row]) -> None:
    """Measures everything, and again what had no quiet round, as long as there is time for it; `rows` gets each."""
    started = time.monotonic()
    task = progress.add_task("", total=len(todo))
    for case in todo:
        progress.update(task, description=text(case))
        if not progress.console.is_terminal:
            progress.console.print(f"{len(rows)} of {len(todo)}: {text(case)}", highlight=False)
        rows.append(measure(*case, target, peak))
        progress.advance(task)
    deadline = time.monotonic() + AGAIN * (time.monotonic() - started)
    while noisy := [index for index, row in enumerate(rows) if row.noisy(peak.best)]:
        for index in noisy:
            if time.monotonic() > deadline:
                return
            progress.update(task, description=f"again: {text(todo[index])}")
            rows[index] = rows[index].merged(measure(*todo[index], target, peak))


def compare_all(todo: Sequence[Case], target: Target, peak: Meter, progress: Progress) -> list[Comparison]:
    """All 3x3 layers of `todo` at DENSITY against DeepSparse.

    Raises PconvgenError when DeepSparse cannot be had or fails.
    """
    promised = {promise.structure for promise in PEER_PROMISES}
    chosen: dict[Layer, list[Pruning]] = {}
    for layer, pruning, density in todo:
        if layer.group == "3x3" and density == DENSITY and pruning.name in promised:
            chosen.setdefault(layer, []).append(pruning)
    if not chosen:
        return []
    found = []
    task = progress.add_task(f"making the environment of {DEEPSPARSE.name}", total=len(chosen))
    with deepsparse.peer() as peer:
        for layer, prunings in chosen.items():
            progress.update(task, description=f"{layer.name} against {DEEPSPARSE.name}")
            found.append(compare(layer, prunings, peer, target, peak))
            progress.advance(task)
    return found


def report(results: Results, folder: Path) -> int:
    """Prints the tables, writes the files; returns how many promises were missed."""
    peak, console, verdicts = results.roofs.fma_gflops, output(), results.verdicts()
    console.print(
        f"{described(results.target)}; one thread, hot caches; FMA peak {peak:.1f} GFLOP/s; reads "
        f"{results.roofs.l2_gbs:.0f} GB/s from the L2 cache, {results.roofs.memory_gbs:.1f} GB/s from memory"
    )
    for group in GROUPS:
        found = [row for row in results.rows if row.group == group]
        if found:
            console.print(row_table(group, found, peak))
    if results.comparisons:
        console.print(comparison_table(results.comparisons, peak))
    if any(is_noisy(row.peak_gflops, peak) for row in (*results.rows, *results.comparisons)):
        console.print("~ no quiet round: the machine was busy with something else, which makes kernels look slower")
    console.print(verdict_table(verdicts, "promises; shares are of the FMA peak"))

    json, picture = _files(folder)
    missing = f"missing: {results.missing}" if results.missing else None
    values = {
        "cpu": results.target.cpu,
        "core": described(results.target),
        "isa": results.target.core.name,
        **asdict(results.roofs),
        "rows": [row.json(peak) for row in results.rows],
        DEEPSPARSE.name.lower(): missing or [asdict(row) for row in results.comparisons],
        "promises": [asdict(verdict) for verdict in verdicts],
    }
    write_json(json, values)
    draw(results.rows, results.roofs, results.target.cpu, picture)
    console.print(f"wrote {json} and {picture}")
    return sum(verdict.missed for verdict in verdicts)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("cannot be made", file=folder, found=error.strerror, remedy="choose another --out") from error


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "kernels.json", folder / "kernels.png"
