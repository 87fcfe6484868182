"""Whole networks, pruned against dense: python -m benchmarks.whole_networks [--json FILE].

For each network: seconds and memory of compiling it, size of the library against what its surviving weights and
their indices take, error against PyTorch, and milliseconds of both versions. One thread, 224x224, batch 1. Each
network is compiled in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pconvgen.files import write_text

CASES = (
    ("resnet50", "pattern", 0.25),
    ("resnet50", "simd_block", 0.25),
    ("vgg16_bn", "pattern", 0.125),
    ("mobilenet_v2", "simd_block", 0.4),
)
MEBI = 1 << 20
COMPILE_LIMIT_S, MEMORY_LIMIT_GIB = 90, 6
"""What compiling ResNet-50 may take."""


@dataclass(frozen=True)
class Row:
    """One network."""

    network: str
    structure: str
    density: float
    compile_s: float
    peak_gib: float
    library_bytes: int
    allowed_bytes: int
    error: float
    pruned_ms: float
    dense_ms: float


def measure(network: str, structure: str, density: float) -> Row:
    """Prunes random weights, compiles, runs and measures."""
    import numpy as np
    import torch

    import pconvgen
    from benchmarks.networks import NETWORKS, randomize
    from pconvgen.sparsify import sparsify

    torch.manual_seed(0)
    model = randomize(NETWORKS[network](), 0, 64)
    sparsify(model, structure, density)
    imported = pconvgen.load_model(model, example=(torch.randn(1, 3, 224, 224),))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        pruned = pconvgen.compile(imported)
        path = pruned.export(Path(folder) / "model.so")
        seconds = time.perf_counter() - started
        size = path.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI
    inputs = pruned.manifest.random_inputs(0)
    (expected,), (found,) = imported.reference(inputs).values(), pruned.run(inputs).values()
    surviving = sum(4 * decision.density * np.prod(decision.shape) for decision in pruned.decisions)
    indices = sum(decision.nbytes for decision in pruned.decisions) - surviving
    return Row(
        network=network,
        structure=structure,
        density=density,
        compile_s=seconds,
        peak_gib=peak,
        library_bytes=size,
        allowed_bytes=int(1.1 * (surviving + max(0.0, indices)) + MEBI),
        error=float(np.abs(found - expected).max() / np.abs(expected).max()),
        pruned_ms=pruned.bench(inputs).median_ms or 0.0,
        dense_ms=pconvgen.compile(imported, dense=True).bench(inputs).median_ms or 0.0,
    )


def main() -> None:
    """Prints the table, writes the JSON; exits with 1 when a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/whole_networks.json"))
    args = parser.parse_args()
    table = Table(title="networks at 224x224, batch 1, one thread, random weights")
    for name in ("network", "structure", "density", "compile s", "GiB", "library MB", "allowed MB", "error"):
        table.add_column(name, justify="right")
    for name in ("pruned ms", "dense ms", "speed-up"):
        table.add_column(name, justify="right")
    rows = []
    for case in CASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, case)
        rows.append(row)
        table.add_row(
            row.network,
            row.structure,
            f"{row.density:.1%}",
            f"{row.compile_s:.0f}",
            f"{row.peak_gib:.1f}",
            f"{row.library_bytes / 1e6:.1f}",
            f"{row.allowed_bytes / 1e6:.1f}",
            f"{row.error:.0e}",
            f"{row.pruned_ms:.2f}",
            f"{row.dense_ms:.2f}",
            f"{row.dense_ms / row.pruned_ms:.2f}",
        )
    Console(width=130).print(table)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    missed = [row.network for row in rows if row.library_bytes > row.allowed_bytes or row.pruned_ms > row.dense_ms]
    missed += [
        row.network
        for row in rows
        if row.network == "resnet50" and (row.compile_s > COMPILE_LIMIT_S or row.peak_gib > MEMORY_LIMIT_GIB)
    ]
    if missed:
        raise SystemExit(f"promises missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
