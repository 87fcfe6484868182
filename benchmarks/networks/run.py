"""A run of the benchmark of whole networks: measures what is chosen, judges, prints and writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.command import RESULTS, matches, progress_bar
from benchmarks.cores import described, host_results
from benchmarks.engines.engine import DENSE, Engine
from benchmarks.models.cases import CASES, Case
from benchmarks.models.exported import quiet_exporter
from benchmarks.networks.measuring import measure
from benchmarks.networks.page import CoreResults, page
from benchmarks.networks.pictures import PICTURES, draw_all
from benchmarks.networks.promises import verdicts
from benchmarks.networks.results import NetworkResult, load, merged, save
from benchmarks.networks.tables import network_table, summary_table
from benchmarks.promises import verdict_table
from pconvgen.errors import UsageError
from pconvgen.files import write_text
from pconvgen.report.console import output
from pconvgen.targets.presets import get_target

PAGE = Path("docs/performance.md")


def run(networks: Sequence[str] | None, peers: Sequence[str] | None, rounds: int, folder: Path | None) -> int:
    """Measures networks in engines and writes to `folder`; returns how many promises were missed.

    Parameters
    ----------
    networks, peers: shell patterns of networks and of other engines; None for all.
    rounds: how often each engine is measured.
    folder: where files go; None for the core's, where earlier networks stay that are not measured again.

    Raises
    ------
    UsageError: there is no such network.
    PconvgenError: pconvgen's own library fails, or files cannot be written.
    """
    cases = [case for case in CASES if matches((case.network, case.title), networks)]
    engines = [engine for engine in DENSE if matches((engine.name, engine.session), peers)]
    if not cases:
        names = ", ".join(case.network for case in CASES)
        raise UsageError("no such network", found=" ".join(networks or ()), expected=names)
    mine = host_results()
    (folder or mine).mkdir(parents=True, exist_ok=True)
    console = output()
    console.print(described(get_target("host")))
    results = measured(cases, engines, rounds)
    if folder is not None:
        return report(results, folder)
    missed = report(merged(load(mine / "networks.json"), results), mine)
    write_page()
    console.print(f"wrote {PAGE}")
    return missed


def measured(cases: Sequence[Case], engines: Sequence[Engine], rounds: int) -> list[NetworkResult]:
    """Measures one network after the other."""
    os.environ["TVM_NUM_THREADS"] = "1"
    console, results = Console(stderr=True), []
    with progress_bar(console) as progress, quiet_exporter():
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
    written = [folder / "networks.json", *draw_all(results, folder)]
    console.print(f"wrote {', '.join(map(str, written))}")
    return sum(verdict.missed for verdict in judged)


def write_page() -> None:
    """Writes docs/performance.md from the results of all cores."""
    cores = []
    for path in sorted(RESULTS.glob("*/networks.json")):
        pictures = [os.path.relpath(path.parent / name, PAGE.parent) for name in PICTURES]
        results = load(path)
        cores.append(CoreResults(path.parent.name, results, verdicts(results), pictures))
    write_text(PAGE, page(cores))
