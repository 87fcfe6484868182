"""Kernels against the roofs of the core: make bench-kernels, or python -m benchmarks.kernels.

For each layer, structure and density: milliseconds of the kernel and of packing its input, useful GFLOP/s (surviving
weights only), and the share of the FMA peak, all on one thread of one process (benchmarks/measure.py has the rules).
Then the same layers in DeepSparse, and the promises of this version. Exits with 1 when one of them is missed.

Writes kernels.json and kernels.png, to benchmarks/results after a full run and to out/ after a filtered one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import deepsparse
from benchmarks.against import Comparison, compare, ratios
from benchmarks.engines import DEEPSPARSE
from benchmarks.layers import DENSITIES, GROUPS, PRUNINGS, Layer, Pruning, layers
from benchmarks.measure import Row, is_noisy, measure
from benchmarks.peak import Meter, Roofs, fma_meter, l2_meter, memory_meter, roofs
from benchmarks.promises import DENSITY, PEER_PROMISES, PROMISES, Verdict, judge, judge_peer
from benchmarks.roofline import draw
from benchmarks.tables import comparison_table, row_table, verdict_table
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import check_writable, write_json
from pconvgen.report.console import output
from pconvgen.targets.presets import get_target
from pconvgen.values.target import Target

RESULTS, FILTERED = Path("benchmarks/results"), Path("out")
AGAIN = 0.3
"""Share of the time so far that rows without a quiet round may take again."""

Case = tuple[Layer, Pruning, float]


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
    """

    target: Target
    roofs: Roofs
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    missing: str

    def verdicts(self) -> list[Verdict]:
        """Every promise, judged."""
        every = layers()
        found = [judge(promise, self.rows, every, self.roofs.fma_gflops) for promise in PROMISES]
        for promise in PEER_PROMISES:
            verdict = judge_peer(promise, ratios(self.comparisons, promise.structure), every, DEEPSPARSE.name)
            found.append(Verdict(verdict.text, "", f"missing: {self.missing}") if self.missing else verdict)
        return found


def run(todo: Sequence[Case], against: bool) -> Results:
    """Measures `todo`, and against the peer if asked for."""
    # TVM's runtime reads this once, before its first parallel loop.
    os.environ["TVM_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    target = get_target("host")
    meters = peak, *_ = fma_meter(target), l2_meter(target), memory_meter(target)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    comparisons: list[Comparison] = []
    missing = "" if against else "not asked for"
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        roofs(*meters)
        rows = measure_all(todo, target, peak, progress)
        if against:
            try:
                comparisons = compare_all(todo, target, peak, progress)
            except PconvgenError as error:
                missing = str(error)
        return Results(target, roofs(*meters), rows, comparisons, missing)


def cases(args: argparse.Namespace) -> list[Case]:
    """What is to be measured, after the filters."""
    chosen = [layer for layer in layers() if _matches((layer.group, layer.name), args.layers)]
    prunings = [pruning for pruning in PRUNINGS if _matches((pruning.name, pruning.structure), args.structures)]
    return [
        (layer, pruning, density)
        for layer in chosen
        for pruning in prunings
        for density in args.densities or DENSITIES
        if pruning.suits(layer, density)
    ]


def measure_all(todo: Sequence[Case], target: Target, peak: Meter, progress: Progress) -> list[Row]:
    """Measures everything, and again what had no quiet round, as long as there is time for it."""
    rows, started = [], time.monotonic()
    task = progress.add_task("", total=len(todo))
    for case in todo:
        progress.update(task, description=_text(case))
        rows.append(measure(*case, target, peak))
        progress.advance(task)
    deadline = time.monotonic() + AGAIN * (time.monotonic() - started)
    while noisy := [index for index, row in enumerate(rows) if row.noisy(peak.best)]:
        for index in noisy:
            if time.monotonic() > deadline:
                return rows
            progress.update(task, description=f"again: {_text(todo[index])}")
            rows[index] = rows[index].merged(measure(*todo[index], target, peak))
    return rows


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
        f"{results.target.cpu}, one thread, hot caches; FMA peak {peak:.1f} GFLOP/s; reads "
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


def main() -> None:
    """Measures, prints, writes."""
    args = _arguments()
    filtered = bool(args.layers or args.structures or args.densities)
    folder = args.out or (FILTERED if filtered else RESULTS)
    try:
        todo = cases(args)
        if not todo:
            raise UsageError(
                "nothing passes the filters",
                found=" ".join(map(str, [*(args.layers or ()), *(args.structures or ()), *(args.densities or ())])),
                expected=f"layers of {', '.join(GROUPS)}; structures {', '.join(p.name for p in PRUNINGS)}",
                remedy="only dense has density 1, and it has no other",
            )
        _make(folder)
        for file in _files(folder):
            check_writable(file)
        missed = report(run(todo, (args.against or ("nothing" if filtered else "deepsparse")) == "deepsparse"), folder)
    except PconvgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if missed:
        raise SystemExit(f"{missed} promises were missed")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("cannot be made", file=folder, found=error.strerror, remedy="choose another --out") from error


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "kernels.json", folder / "kernels.png"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", metavar="GLOB", help="groups or names, e.g. 3x3 or '*@14'")
    parser.add_argument("--structures", nargs="+", metavar="GLOB", help="e.g. 'simd_block(4)' pattern")
    parser.add_argument("--densities", nargs="+", type=_density, metavar="D", help="e.g. 0.125 1")
    parser.add_argument("--against", choices=("deepsparse", "nothing"), help="default: deepsparse without filters")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where kernels.json and kernels.png go")
    return parser.parse_args()


def _matches(names: Sequence[str], globs: Sequence[str] | None) -> bool:
    return globs is None or any(fnmatch(name, glob) for name in names for glob in globs)


def _text(case: Case) -> str:
    layer, pruning, density = case
    return f"{layer.group} {layer.name} {pruning.name} {density:g}"


def _density(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most 1")
    return value


if __name__ == "__main__":
    main()
