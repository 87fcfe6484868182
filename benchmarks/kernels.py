"""Kernels against the roofs of the core: make bench-kernels, or python -m benchmarks.kernels.

For each layer, structure and density: milliseconds of the kernel and of packing its input, useful GFLOP/s (surviving
weights only), and the share of the FMA peak, all on one thread of one process (benchmarks/measure.py has the rules).
Then the same layers in DeepSparse, and the promises of this version. Exits with 1 when one of them is missed.

Writes kernels.json and kernels.png, to benchmarks/results after a full run and to out/ after a filtered one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks import deepsparse
from benchmarks.against import Comparison, compare
from benchmarks.layers import DENSITIES, GROUPS, PRUNINGS, Layer, Pruning, layers
from benchmarks.measure import Row, is_noisy, measure
from benchmarks.peak import MEMORY_BYTES, Meter, fma_meter, read_meter
from benchmarks.promises import DENSITY, PEER_PROMISES, PROMISES, Verdict, geometric_mean, judge, judge_peer
from benchmarks.roofline import Roofs, draw
from pconvgen.errors import PconvgenError
from pconvgen.files import check_writable, write_json
from pconvgen.report.console import output
from pconvgen.schedules import ISAS
from pconvgen.targets.presets import get_target, llvm_target
from pconvgen.targets.target import Target

RESULTS, FILTERED = Path("benchmarks/results"), Path("out")
READINGS = 5
"""Readings of a bandwidth, before the kernels and after them."""

AGAIN_S = 240
REASON_WIDTH = 60

Case = tuple[Layer, Pruning, float]


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
    rows = []
    task = progress.add_task("", total=len(todo))
    for case in todo:
        progress.update(task, description=_text(case))
        rows.append(measure(*case, target, peak))
        progress.advance(task)
    deadline = time.monotonic() + AGAIN_S
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
    found = []
    task = progress.add_task(f"making the environment of {deepsparse.NAME}", total=len(chosen))
    with deepsparse.running() as peer:
        for layer, prunings in chosen.items():
            progress.update(task, description=f"{layer.name} against {deepsparse.NAME}")
            found.append(compare(layer, prunings, peer, target, peak))
            progress.advance(task)
    return found


def row_table(group: str, rows: Sequence[Row], peak: float) -> Table:
    """The rows of one group of layers."""
    table = Table(title=f"{group} layers", title_justify="left")
    for name in ("layer", "structure", "density", "kernel ms", "pack ms", "GFLOP/s", "share", "share with packing"):
        table.add_column(name, justify="left" if name == "structure" else "right")
    for index, row in enumerate(rows):
        if index and row.layer != rows[index - 1].layer:
            table.add_section()
        table.add_row(
            row.layer,
            row.structure,
            f"{row.density:.1%}",
            f"{row.kernel_ms:.4f}",
            f"{row.pack_ms:.4f}" if row.pack_ms else "",
            f"{row.gflops:.1f}",
            f"{row.gflops / peak:.3f}{'~' if row.noisy(peak) else ''}",
            f"{row.packed_gflops / peak:.3f}",
        )
    return table


def comparison_table(found: Sequence[Comparison], peak: float) -> Table:
    """Milliseconds of the peer, and how many times as fast each structure is."""
    structures = list(dict.fromkeys(structure for row in found for structure in row.ours_ms))
    table = Table(
        title=f"times as fast as {deepsparse.REQUIREMENTS[0]}, one core, {DENSITY:.1%} of the weights, with packing",
        title_justify="left",
    )
    for name in ("layer", f"{deepsparse.NAME} ms", *structures):
        table.add_column(name, justify="right")
    for row in found:
        ratios = (f"{row.ratio(structure):.2f}" if structure in row.ours_ms else "" for structure in structures)
        mark = "~" if is_noisy(row.peak_gflops, peak) else ""
        table.add_row(row.layer + mark, f"{row.peer_ms:.4f}", *ratios)
    table.add_section()
    means = (geometric_mean(_ratios(found, structure)) for structure in structures)
    table.add_row("geometric mean", "", *(f"{mean:.2f}" for mean in means))
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """What was promised and what was measured."""
    table = Table("promise", "measured", title="promises; shares are of the FMA peak", title_justify="left")
    table.add_column(max_width=REASON_WIDTH)
    for verdict in verdicts:
        style = "bold red" if verdict.missed else "green" if verdict.word == "ok" else "yellow"
        table.add_row(verdict.text, verdict.found, Text(verdict.word, style))
    return table


def main() -> None:
    """Measures, prints, writes."""
    args = _arguments()
    # TVM's runtime and PyTorch read these once, before their first parallel loop.
    os.environ["TVM_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    every, todo = layers(), cases(args)
    if not todo:
        raise SystemExit("no layer, structure and density passes the filters; see --help")
    filtered = bool(args.layers or args.structures or args.densities)
    folder = args.out or (FILTERED if filtered else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "kernels.json", folder / "kernels.png"
    for file in files:
        check_writable(file)

    target = get_target("host")
    tvm_target, lanes = llvm_target(target), ISAS[target.isa].widths[0].lanes
    peak = fma_meter(tvm_target, lanes)
    l2 = read_meter(tvm_target, lanes, target.l2_kib * 1024 // 2)
    memory = read_meter(tvm_target, lanes, MEMORY_BYTES)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    comparisons, missing = [], "not asked for"
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        _read(peak, l2, memory)
        rows = measure_all(todo, target, peak, progress)
        if args.against == "deepsparse" or (args.against is None and not filtered):
            try:
                comparisons, missing = compare_all(todo, target, peak, progress), ""
            except PconvgenError as error:
                missing = str(error)
        _read(peak, l2, memory)

    roofs = Roofs(fma_gflops=peak.best, l2_gbs=l2.best, memory_gbs=memory.best)
    verdicts = [judge(promise, rows, every, peak.best) for promise in PROMISES]
    expected = sum(layer.group == "3x3" for layer in every)
    for promise in PEER_PROMISES:
        verdict = judge_peer(promise, _ratios(comparisons, promise.structure), expected, deepsparse.NAME)
        verdicts.append(Verdict(verdict.text, "", f"missing: {missing}") if missing else verdict)

    console = output()
    console.print(
        f"{target.cpu}, one thread, hot caches; FMA peak {roofs.fma_gflops:.1f} GFLOP/s; reads {roofs.l2_gbs:.0f} GB/s "
        f"from the L2 cache, {roofs.memory_gbs:.1f} GB/s from memory"
    )
    for group in GROUPS:
        found = [row for row in rows if row.group == group]
        if found:
            console.print(row_table(group, found, peak.best))
    if any(is_noisy(row.peak_gflops, peak.best) for row in (*rows, *comparisons)):
        console.print("~ no quiet round: the machine was busy with something else, kernels are at least this fast")
    if comparisons:
        console.print(comparison_table(comparisons, peak.best))
    console.print(verdict_table(verdicts))
    write_json(
        files[0],
        {
            "cpu": target.cpu,
            "isa": target.isa,
            **asdict(roofs),
            "rows": [row.json(peak.best) for row in rows],
            deepsparse.NAME.lower(): [asdict(row) for row in comparisons] if not missing else f"missing: {missing}",
            "promises": [asdict(verdict) for verdict in verdicts],
        },
    )
    draw(rows, roofs, target.cpu, files[1])
    console.print(f"wrote {files[0]} and {files[1]}")
    missed = sum(verdict.missed for verdict in verdicts)
    if missed:
        raise SystemExit(f"{missed} promises were missed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", metavar="GLOB", help="groups or names, e.g. 3x3 or '*@14'")
    parser.add_argument("--structures", nargs="+", metavar="GLOB", help="e.g. 'simd_block(4)' pattern")
    parser.add_argument("--densities", nargs="+", type=float, metavar="D", help="e.g. 0.125 1")
    parser.add_argument("--against", choices=("deepsparse", "nothing"), help="default: deepsparse without filters")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where kernels.json and kernels.png go")
    return parser.parse_args()


def _matches(names: Sequence[str], globs: Sequence[str] | None) -> bool:
    return globs is None or any(fnmatch(name, glob) for name in names for glob in globs)


def _text(case: Case) -> str:
    layer, pruning, density = case
    return f"{layer.group} {layer.name} {pruning.name} {density:g}"


def _ratios(found: Sequence[Comparison], structure: str) -> list[float]:
    return [row.ratio(structure) for row in found if structure in row.ours_ms]


def _read(*meters: Meter) -> None:
    for meter in meters:
        for _ in range(READINGS):
            meter()


if __name__ == "__main__":
    main()
