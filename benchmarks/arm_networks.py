"""Instructions of whole networks on ARM: `make bench-arm`, or python -m benchmarks.arm_networks [--networks NAME...].

Pruned and dense by pconvgen, dense by other engines' ARM wheels; one inference of a small image, counted under qemu.
Counts are exact and repeat; they are not times. One thread; float32, and float16 where an engine has it. Exits with 1
when a promise is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

import pconvgen
from benchmarks.arm import TARGET
from benchmarks.arm_peers import HALF_PEERS, PEERS, count_peer
from benchmarks.network_cases import CASES, Case, Exported, Variant, export
from benchmarks.network_measure import quiet_exporter
from benchmarks.network_results import DENSE, OURS
from benchmarks.promises import Verdict
from benchmarks.tables import verdict_table
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError
from pconvgen.files import write_json
from pconvgen.report.console import output

SIZE = 64
"""Height and width of the images: emulation is slow."""

OPTIONS = {"vgg16_bn": {"pool": 2}}
"""What fits a network to the small image: VGG-16 ends with planes of 2x2 then."""

TIMEOUT_S = 3600
FORMATS = {"float32": PEERS, "float16": HALF_PEERS}
"""What is computed in, and the engines that do."""

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""Largest error relative to the largest output."""
LANES = {"float32": 4, "float16": 8}


@dataclass(frozen=True)
class Promise:
    """A pruned network takes at most this share of the best dense engine's instructions, in the same format."""

    network: str
    weights: str
    share: float
    format: str = "float32"


PROMISES = tuple(
    Promise(*promised, format)
    for format in FORMATS
    for promised in (("vgg16_bn", "simd_block 8x", 0.55), ("resnet50", "simd_block 4x", 0.6))
)


@dataclass(frozen=True)
class Row:
    """One engine on one network, for one inference.

    Attributes
    ----------
    network, title: the network.
    engine: its name.
    weights: DENSE or the name of a variant.
    instructions: all of them.
    vector_fma: vector FMAs among them.
    bound: surviving multiply-accumulates / lanes; 0 where they are not known.
    format: float32 or float16.
    """

    network: str
    title: str
    engine: str
    weights: str
    instructions: int
    vector_fma: int
    bound: int
    format: str = "float32"


def cases(names: Sequence[str] | None) -> list[Case]:
    """The networks that are promised, with their first variant and a small image."""
    promised = [promise.network for promise in PROMISES]
    return [
        replace(case, size=SIZE, variants=case.variants[:1], options=OPTIONS.get(case.network, {}))
        for case in CASES
        if case.network in (names or promised)
    ]


def count(case: Case, say: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """The rows of one network, and what is missing with its reason.

    Raises PconvgenError when pconvgen's own library fails or computes something else than PyTorch.
    """
    rows, missing = [], []
    # Dense sums of random weights in float16 are off by a tenth and more, here as in other engines.
    dense = [("float32", None)]
    for format, variant in [*dense, *product(FORMATS, case.variants)]:
        say(f"{case.title}: {variant.name if variant else DENSE}, {format}")
        rows.append(_ours(case, variant, format))
    with tempfile.TemporaryDirectory(prefix="pconvgen-network-") as folder:
        model = export(case.build(), case.image(), Path(folder) / "model.onnx")
        for format, peer in ((format, peer) for format, peers in FORMATS.items() for peer in peers):
            say(f"{case.title}: {peer.name}")
            try:
                span = count_peer(peer, model, TARGET, TIMEOUT_S)
            except PconvgenError as error:
                missing.append(f"{peer.name} on {case.title}: {error}")
                continue
            fmas = span.classes["vector_fma"]
            rows.append(Row(case.network, case.title, peer.name, DENSE, span.instructions, fmas, 0, format))
    return rows, missing


def _ours(case: Case, variant: Variant | None, format: str) -> Row:
    weights = variant.name if variant else DENSE
    model = case.pruned(variant) if variant else case.build()
    compiled = pconvgen.compile(model, TARGET, example=(case.image(),), dtype=format)
    with tempfile.TemporaryDirectory(prefix="pconvgen-network-") as name:
        folder = Path(name)
        exported: Exported = export(model, case.image(), folder / "model.onnx")
        library = compiled.manifest.model(compiled.export(folder / "model.so"))
        (image,) = exported.inputs.values()
        inputs = {compiled.manifest.inputs[0][0]: image}
        outputs, span = EmulatedDevice(timeout_s=TIMEOUT_S).profile(library, inputs)
    error = exported.error(list(outputs.values()))
    if not error < TOLERANCE[format]:  # also when it is not a number
        found, expected = f"error {error:.1e}", TOLERANCE[format]
        raise PconvgenError(f"{case.title} computes something else", found=found, expected=expected)
    macs = sum(decision.macs * decision.density for decision in compiled.decisions)
    bound = int(macs / LANES[format])
    return Row(case.network, case.title, OURS, weights, span.instructions, span.classes["vector_fma"], bound, format)


def judge(promise: Promise, rows: Sequence[Row]) -> Verdict:
    """Judges by the best dense engine; all of them have to be there."""
    text = (
        f"{promise.network}, {promise.weights}, {promise.format}: <= {promise.share:g} of the best dense engine's"
        " instructions"
    )
    found = [row for row in rows if (row.network, row.format) == (promise.network, promise.format)]
    ours = next((row for row in found if row.engine == OURS and row.weights == promise.weights), None)
    best = min((row for row in found if row.engine != OURS), key=lambda row: row.instructions, default=None)
    if ours is None or best is None:
        return Verdict(text, "", "not measured")
    share = ours.instructions / best.instructions
    absent = [peer.name for peer in FORMATS[promise.format] if not any(row.engine == peer.name for row in found)]
    word = "MISSED" if share > promise.share else f"not judged without {', '.join(absent)}" if absent else "ok"
    return Verdict(text, f"{share:.3f} of {best.engine}", word)


def table(rows: Sequence[Row]) -> Table:
    """Every engine on every network."""
    made = Table(
        title=f"networks at {SIZE}x{SIZE}, {TARGET}, one inference: millions of instructions", title_justify="left"
    )
    for name in ("network", "format", "engine", "weights", "instructions", "vector FMAs", "bound", "of the best dense"):
        made.add_column(name, justify="right" if len(made.columns) > 3 else "left")
    for row in rows:
        same = [r for r in rows if (r.network, r.format) == (row.network, row.format) and r.engine != OURS]
        best = min((r.instructions for r in same), default=0)
        counts = [f"{value / 1e6:.1f}" for value in (row.instructions, row.vector_fma, row.bound) if value]
        counts += [""] * (3 - len(counts))
        made.add_row(
            row.title, row.format, row.engine, row.weights, *counts, f"{row.instructions / best:.3f}" if best else ""
        )
    return made


def main() -> None:
    """Prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=[promise.network for promise in PROMISES])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/arm_networks.json"))
    args = parser.parse_args()
    if reason := EmulatedDevice().available():
        raise SystemExit(f"nothing can be counted: {reason}")
    rows: list[Row] = []
    missing: list[str] = []
    errors = Console(stderr=True, highlight=False)
    try:
        with errors.status("") as status, quiet_exporter():
            for case in cases(args.networks):
                counted = count(case, status.update if errors.is_terminal else errors.print)
                rows += counted[0]
                missing += counted[1]
        console = output()
        console.print(table(rows))
        for line in missing:
            console.print(f"MISSING {line}", style="bold red")
        verdicts = [judge(promise, rows) for promise in PROMISES]
        console.print(verdict_table(verdicts))
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            args.json,
            {
                "target": TARGET,
                "size": SIZE,
                "peers": {peer.name: peer.wheels for peers in FORMATS.values() for peer in peers},
                "missing": missing,
                "rows": [asdict(row) for row in rows],
                "promises": [asdict(verdict) for verdict in verdicts],
            },
        )
    except PconvgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if missed := sum(verdict.missed for verdict in verdicts):
        raise SystemExit(f"{missed} promises were missed")


if __name__ == "__main__":
    main()
