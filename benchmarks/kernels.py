"""Kernels against the FMA peak: `make bench`, or python -m benchmarks.kernels [--json FILE].

For each layer and structure: milliseconds of the kernel and of packing its input, useful GFLOP/s (surviving weights
only), and the share of the FMA peak that is measured beside it in the same process. One thread.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from rich.console import Console
from rich.table import Table

from benchmarks.peak import peak_gflops
from pconvgen.files import write_text
from pconvgen.schedules import ISAS
from pconvgen.schedules.default import Choice, rank
from pconvgen.sparsity import STRUCTURES, candidates, encode
from pconvgen.sparsity.patterns import PCONV_PATTERNS
from pconvgen.targets.presets import get_target, llvm_target
from pconvgen.targets.target import Target
from pconvgen.templates.instance import instantiate
from pconvgen.workload import ConvWorkload, Epilogue

LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7))
"""3x3 layers: channels in and out, height and width."""

STRUCTURE_PARAMS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("simd_block", 0.125, {"n": 4}),
    ("simd_block", 0.125, {"n": 8}),
    ("simd_block", 0.125, {"n": 16}),
    ("block_punched", 0.125, {}),
    ("pattern", 0.125, {"balanced": False, "patterns": PCONV_PATTERNS}),
    ("pattern", 0.125, {"balanced": False}),
    ("unstructured", 0.125, {}),
    ("dense", 1.0, {}),
)

REQUIRED = {("simd_block(4)", "256@14"): 0.80, ("simd_block(16)", "256@14"): 0.80, ("pattern(8)", "256@14"): 0.65}
"""Shares of the peak that this version promises. pattern(4): PCONV's; pattern(8): the most frequent of random weights,
which favour no column and so share the fewest loads."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    layer: str
    structure: str
    density: float
    kernel_ms: float
    pack_ms: float
    gflops: float
    peak_gflops: float
    share: float
    schedule: dict[str, Any]


def measure(channels: int, size: int, structure: str, density: float, params: dict[str, Any], target: Target) -> Row:
    """Prunes a random weight, takes the default schedule of its own structure, and measures it."""
    workload = ConvWorkload(
        1, channels, size, size, channels, (3, 3), padding=(1, 1, 1, 1), epilogue=Epilogue(bias=True, low=0.0)
    )
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(workload.weight_shape).astype(np.float32)
    if structure != "dense":
        weight = STRUCTURES[structure].project(weight, density, **params)
    choice = own_choice(workload, weight, structure, params, target)
    isa, tvm_target = ISAS[target.isa], llvm_target(target)
    instance = instantiate(workload, encode(weight, choice.candidate, 1, choice.max_group), choice.schedule, isa)
    functions = {"kernel": instance.kernel.build()} | ({"pack": instance.pack.build()} if instance.pack else {})
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    library = tvm.compile(module, target=tvm_target)

    def tensor(array: Any) -> Any:
        return tvm.runtime.tensor(np.ascontiguousarray(array))

    def best_ms(name: str, *args: Any) -> float:
        # Of three medians the best: a neighbour on the same core halves the speed for a while.
        evaluate = library.mod.time_evaluator(name, tvm.cpu(), number=5, repeat=15)
        return 1e3 * min(float(np.median(evaluate(*args).results)) for _ in range(3))

    data = tensor(rng.standard_normal((1, channels, size, size)).astype(np.float32))
    pack_ms = 0.0
    if instance.pack:
        packed = tensor(np.zeros((1, instance.pack.layout.size), np.float32))
        pack_ms = best_ms("pack", data, packed)
        data = packed
    out = tensor(np.zeros((1, channels, size, size), np.float32))
    bias = tensor(rng.standard_normal(channels).astype(np.float32))
    kernel_ms = best_ms("kernel", data, *map(tensor, instance.constants), bias, out)
    peak = peak_gflops(tvm_target, isa.widths[0].lanes)
    gflops = 2e-6 * np.count_nonzero(weight) * size * size / kernel_ms
    return Row(
        layer=f"{channels}@{size}",
        structure=f"pattern({choice.candidate.bodies})" if structure == "pattern" else str(choice.candidate),
        density=float(np.count_nonzero(weight) / weight.size),
        kernel_ms=kernel_ms,
        pack_ms=pack_ms,
        gflops=gflops,
        peak_gflops=peak,
        share=gflops / peak,
        schedule=asdict(choice.schedule),
    )


def own_choice(workload: ConvWorkload, weight: Any, structure: str, params: dict[str, Any], target: Target) -> Choice:
    """The default schedule for the encoding that the weight was pruned for."""
    found = [
        candidate
        for candidate in candidates(weight)
        if candidate.structure == structure
        and candidate.params.get("n") == params.get("n")
        and not candidate.params.get("whole_kernel")
    ]
    return rank(workload, found, ISAS[target.isa], target.l2_kib)[0]


def main() -> None:
    """Prints the table, writes the JSON; exits with 1 when a promised share is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/kernels.json"))
    args = parser.parse_args()
    target = get_target("host")
    table = Table(title=f"3x3 layers on {target.cpu}, one thread; share of the FMA peak measured beside each")
    for name in ("layer", "structure", "density", "kernel ms", "pack ms", "GFLOP/s", "peak", "share", "promised"):
        table.add_column(name, justify="left" if name == "structure" else "right")
    rows, missed = [], 0
    for channels, size in LAYERS:
        for structure, density, params in STRUCTURE_PARAMS:
            row = measure(channels, size, structure, density, params, target)
            rows.append(row)
            promised = REQUIRED.get((row.structure, row.layer))
            missed += promised is not None and row.share < promised
            table.add_row(
                row.layer,
                row.structure,
                f"{row.density:.1%}",
                f"{row.kernel_ms:.3f}",
                f"{row.pack_ms:.3f}",
                f"{row.gflops:.1f}",
                f"{row.peak_gflops:.1f}",
                f"{row.share:.2f}",
                "" if promised is None else f"{promised:.2f} {'ok' if row.share >= promised else 'MISSED'}",
            )
    Console(width=120).print(table)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.json, json.dumps({"cpu": target.cpu, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    if missed:
        raise SystemExit(f"{missed} promised shares were missed")


if __name__ == "__main__":
    main()
