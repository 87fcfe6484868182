"""Whole networks against other engines: make bench-networks, or python -m benchmarks.whole_networks.

For each network, pruned and dense: milliseconds on one thread here and in every engine that users would pick,
interleaved in one run (benchmarks/network_measure.py has the rules), the bound that the FMA peak sets, seconds and
memory of compiling, size of the library, and every layer beside the same layer compiled dense. Exits with 1 when a
promise is missed.

The first run takes longer: it makes the engines' environments in the user's cache folder and tunes TVM for one network.

Writes networks.json, pictures and docs/performance.md after a full run; a filtered one writes to out/. With --out
benchmarks/results, networks that were measured again take the places of the earlier ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.engines import DENSE, Engine
from benchmarks.network_cases import CASES, Case
from benchmarks.network_figures import draw_all
from benchmarks.network_measure import ROUNDS, measure, quiet_exporter
from benchmarks.network_page import page
from benchmarks.network_promises import verdicts
from benchmarks.network_results import NetworkResult, load, merged, save
from benchmarks.network_tables import network_table, summary_table
from benchmarks.tables import verdict_table
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import write_text
from pconvgen.report.console import output

RESULTS, FILTERED = Path("benchmarks/results"), Path("out")
PAGE = Path("docs/performance.md")


def run(cases: Sequence[Case], engines: Sequence[Engine], rounds: int) -> list[NetworkResult]:
    """Measures one network after the other."""
    os.environ["TVM_NUM_THREADS"] = "1"
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console, results = Console(stderr=True), []
    with Progress(*columns, console=console, transient=True) as progress, quiet_exporter():
        task = progress.add_task("", total=len(cases))
        for case in cases:

            def say(text: str, title: str = case.title) -> None:
                progress.update(task, description=f"{title}: {text}")
                if not console.is_terminal:
                    console.print(f"{title}: {text}", highlight=False)

            results.append(measure(case, engines, rounds, say))
            progress.advance(task)
    return results


def report(results: Sequence[NetworkResult], folder: Path) -> int:
    """Prints the tables, writes the files; returns how many promises were missed."""
    console, judged = output(), verdicts(results)
    for result in results:
        console.print(network_table(result))
        for line in result.missing:
            console.print(f"MISSING {line}", style="bold red")
    console.print(summary_table(results))
    console.print(verdict_table(judged))
    save(results, folder / "networks.json")
    pictures = draw_all(results, folder)
    written = [folder / "networks.json", *pictures]
    if folder == RESULTS:
        write_text(PAGE, page(results, judged, [os.path.relpath(path, PAGE.parent) for path in pictures]))
        written.append(PAGE)
    console.print(f"wrote {', '.join(map(str, written))}")
    return sum(verdict.missed for verdict in judged)


def main() -> None:
    """Measures, prints, writes."""
    args = _arguments()
    cases = [case for case in CASES if _matches((case.network, case.title), args.networks)]
    engines = [engine for engine in DENSE if _matches((engine.name, engine.session), args.peers)]
    folder = args.out or (FILTERED if args.networks or args.peers is not None else RESULTS)
    try:
        if not cases:
            names = ", ".join(case.network for case in CASES)
            raise UsageError("no such network", found=" ".join(args.networks), expected=names)
        folder.mkdir(parents=True, exist_ok=True)
        results = run(cases, engines, args.rounds)
        missed = report(merged(load(folder / "networks.json"), results) if folder == RESULTS else results, folder)
    except PconvgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if missed:
        raise SystemExit(f"{missed} promises were missed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", metavar="GLOB", help="e.g. vgg16_bn 'mobilenet*'")
    parser.add_argument("--peers", nargs="*", metavar="GLOB", help="e.g. MNN deepsparse; none for no peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each engine is measured (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go")
    return parser.parse_args()


def _matches(names: Sequence[str], globs: Sequence[str] | None) -> bool:
    return globs is None or any(fnmatch(name.lower(), glob.lower()) for name in names for glob in globs)


if __name__ == "__main__":
    main()
