"""Instructions of 3x3 layers on ARM, without ARM hardware: `make bench-arm`, or python -m benchmarks.arm [--json FILE].

For each layer, pconvgen's kernel of every structure and other engines' dense kernels run under qemu, which counts the
instructions of one inference (vector FMAs beside them). Counts are exact and repeat; they are not times. The cycles
next to them are static estimates by llvm-mca. One thread, float32 and half precision, bias and ReLU included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tvm import relax

from benchmarks.arm_peers import PEERS, Peer, count_peer
from benchmarks.deepsparse import layer_model
from benchmarks.measure import Data
from benchmarks.network_cases import Exported
from pconvgen.devices import static_cycles
from pconvgen.devices.counts import Span
from pconvgen.devices.device import Model
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError
from pconvgen.files import write_text
from pconvgen.planning.search import rank
from pconvgen.sparsity import STRUCTURES, Candidate, encode, project
from pconvgen.sparsity.patterns import PCONV_PATTERNS
from pconvgen.targets.linker import library_linker
from pconvgen.targets.presets import get_target
from pconvgen.templates.family import DIRECT, instantiate
from pconvgen.templates.instance import Instance
from pconvgen.templates.movement.pack import PackKernel, input_pack
from pconvgen.tvm_compat.building import build, export_library
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.relax import constant
from pconvgen.values.precision import FLOAT32, Precision, precision
from pconvgen.values.target import Target
from pconvgen.values.workload import RELU, ConvWorkload, Epilogue

LAYERS = ((64, 112), (128, 56), (256, 28), (512, 14))
"""Channels in and out, height and width: 462.4 million multiply-accumulates each."""
TARGET = "cortex-a76"
CORES = ("Cortex-A76", "Cortex-A55")
"""Whose cycles are estimated."""
TOLERANCE = {"float32": 1e-5, "float16": 1e-2}
"""Largest error relative to the largest output, by the format of the sums."""

# NEON has four lanes: blocks of 16 filters are for wider vectors.
STRUCTURES_COUNTED: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("simd_block", 0.125, {"n": 4}),
    ("simd_block", 0.125, {"n": 8}),
    ("block_punched", 0.125, {}),
    ("pattern", 0.125, {"balanced": False, "patterns": PCONV_PATTERNS}),
    ("pattern", 0.125, {"balanced": False}),
    ("unstructured", 0.125, {}),
    ("dense", 1.0, {}),
)
"""(structure, density, params of `project`)."""

HALF_COUNTED: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("simd_block", 0.125, {"n": 8}),
    ("pattern", 0.125, {"balanced": False, "patterns": PCONV_PATTERNS}),
)
"""The same in half precision. Dense layers of so many channels add up in float32 (planning/half.py)."""
HALF = precision("float16")

PROMISED = {
    "simd_block(4)": 20.5e6,
    "pattern(4)": 28e6,
    "pattern(8)": 28e6,
    "simd_block(8), float16": 10.5e6,
    "pattern(4), float16": 14e6,
}
"""Instructions, packing included, mean of the layers. pattern(4) is PCONV's, pattern(8) what suits random weights."""
PROMISED_AS_PEER = {"dense": "onnxruntime"}
"""At most as many as this engine."""


@dataclass(frozen=True)
class Row:
    """One kernel or engine on one layer, for one inference.

    Attributes
    ----------
    layer, name, density: such as 256@28, simd_block(4), 0.125.
    kernel, pack, total: instructions of the kernel, of packing its input, and of both; an engine has a total only.
    vector_fma: vector FMAs among them.
    bound: surviving multiply-accumulates / lanes of a vector.
    classes: the instructions by coarse class.
    cycles: estimates by llvm-mca for each core; empty without llvm-mca.
    schedule: how the kernel was generated; None for an engine.
    """

    layer: str
    name: str
    density: float
    kernel: int | None
    pack: int | None
    total: int
    vector_fma: int
    bound: int
    classes: dict[str, int]
    cycles: dict[str, float]
    schedule: dict[str, Any] | None


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """A dense layer with its data and what it must compute, all float32 NCHW; the epilogue is bias and ReLU."""

    workload: ConvWorkload
    weight: NDArray[np.float32]
    data: NDArray[np.float32]
    bias: NDArray[np.float32]
    expected: NDArray[np.float32]


def random_layer(channels: int, size: int) -> DenseLayer:
    """A dense layer with random data; always the same for the same shape."""
    epilogue = Epilogue(bias=True, activation=RELU)
    w = ConvWorkload(1, channels, size, size, channels, (3, 3), padding=(1, 1, 1, 1), epilogue=epilogue)
    rng = np.random.default_rng(0)
    # The weight first and as it is: patterns and blocks are those of `make bench`.
    weight = rng.standard_normal(w.weight_shape).astype(np.float32)
    data = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    return DenseLayer(w, weight, data, bias, _reference(w, weight, data, bias))


def _reference(w: ConvWorkload, weight: Any, data: Any, bias: Any) -> NDArray[np.float32]:
    tensors = (torch.from_numpy(array) for array in (data, weight, bias))
    return torch.relu(torch.conv2d(*tensors, padding=w.padding[:2])).numpy()


def count_kernel(
    layer: DenseLayer,
    structure: str,
    density: float,
    params: dict[str, Any],
    cycles: bool,
    formats: Precision = FLOAT32,
) -> Row:
    """Prunes the layer's weight and counts the default kernel of the structure, in the given formats.

    Raises
    ------
    PconvgenError: the kernel computes something else than PyTorch.
    """
    w, target = replace(layer.workload, precision=formats), get_target(TARGET)
    lanes = target.core.lanes(formats.arithmetic)
    weight = layer.weight
    if structure != "dense":
        weight = project(structure, weight, density, **params)
    found = STRUCTURES[structure].detect(weight)
    own = [c for c in found if c.params.get("n") == params.get("n") and not c.params.get("whole_kernel")]
    choice = rank(w, own, target.core, families=DIRECT)[0]
    instance = instantiate(
        w, encode(weight, choice.candidate, 1, choice.max_group), choice.schedule, target.core.isa, choice.places
    )
    packing = input_pack(w.batch, choice.places.source, lanes) if choice.places else None
    if packing:
        packing = replace(packing, formats=(formats.activations, formats.arithmetic))
    expected = _reference(w, weight, layer.data, layer.bias)
    span = _profile(layer, formats, instance, packing, target, expected)
    pack = _profile(layer, formats, instance, packing, target, None).instructions if packing else 0
    return Row(
        layer=f"{w.in_channels}@{w.height}",
        name=_name(structure, choice.candidate, formats),
        density=float(np.count_nonzero(weight) / weight.size),
        kernel=span.instructions - pack,
        pack=pack,
        total=span.instructions,
        vector_fma=span.classes["vector_fma"],
        bound=int(np.count_nonzero(weight)) * w.out_height * w.out_width // lanes,
        classes=dict(span.classes),
        cycles=_cycles(span) if cycles else {},
        schedule={"group": instance.kernel.group, **asdict(choice.schedule)},
    )


def _name(structure: str, candidate: Candidate, formats: Precision) -> str:
    # Which blocks a punched weight is stored in differs from layer to layer.
    names = {"pattern": f"pattern({candidate.bodies})", "block_punched": structure}
    name = names.get(structure, str(candidate))
    return name if formats == FLOAT32 else f"{name}, {formats.activations}"


def _profile(
    layer: DenseLayer,
    formats: Precision,
    instance: Instance,
    pack: PackKernel | None,
    target: Target,
    expected: NDArray[np.float32] | None,
) -> Span:
    """What packing and kernel execute as a model of one layer, whose output is checked; without one, packing alone."""
    w, calls = layer.workload, KernelCalls()
    data = relax.Var("data", relax.TensorType(layer.data.shape, formats.activations))
    builder = relax.BlockBuilder()
    with builder.function("main", [data]):
        with builder.dataflow():
            value = data
            if pack:
                value = builder.emit(calls.call(pack, [data], (w.batch, pack.target.size), pack.formats[1]))
            if expected is not None:
                args = [value, *map(constant, instance.constants), constant(layer.bias.astype(formats.arithmetic))]
                call = calls.call(instance.kernel, args, layer.expected.shape, formats.activations)
                value = builder.emit(call)
            output = builder.emit_output(value)
        builder.emit_func_output(output)
    executable = build(calls.add_to(builder.get()), llvm_target(target), {})
    with tempfile.TemporaryDirectory(prefix="pconvgen-arm-") as folder:
        path = Path(folder) / "model.so"
        export_library(executable, str(path), library_linker(target))
        model = Model(path, (("data", layer.data.shape, formats.activations),), ("output",), target.name)
        outputs, span = EmulatedDevice().profile(model, {"data": layer.data.astype(formats.activations)})
    if expected is not None:
        error = float(np.abs(outputs["output"] - expected).max() / np.abs(expected).max())
        limit = TOLERANCE[formats.arithmetic]
        if not error < limit:
            raise PconvgenError("the kernel computes another layer", found=f"error {error:.1e}", expected=limit)
    return span


def count_engine(peer: Peer, layer: DenseLayer, cycles: bool) -> Row:
    """Counts another engine's dense kernel."""
    w = layer.workload
    with tempfile.TemporaryDirectory(prefix="pconvgen-layer-") as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer_model(w, Data(layer.weight, layer.data, layer.bias, layer.expected)), str(path))
        span = count_peer(peer, Exported(path, {"data": layer.data}, {"out": layer.expected}), TARGET)
    return Row(
        layer=f"{w.in_channels}@{w.height}",
        name=peer.name,
        density=1.0,
        kernel=None,
        pack=None,
        total=span.instructions,
        vector_fma=span.classes["vector_fma"],
        bound=layer.weight.size * w.out_height * w.out_width // 4,
        classes=dict(span.classes),
        cycles=_cycles(span) if cycles else {},
        schedule=None,
    )


def _cycles(span: Span) -> dict[str, float]:
    return {core: static_cycles.estimate(span, static_cycles.model_of(core.lower())) for core in CORES}


def averages(rows: list[Row]) -> dict[str, float]:
    """Instructions of each name, averaged over the layers; only names that were counted on all of them."""
    totals: dict[str, list[int]] = {}
    for row in rows:
        totals.setdefault(row.name, []).append(row.total)
    return {name: sum(counts) / len(counts) for name, counts in totals.items() if len(counts) == len(LAYERS)}


def promises(average: dict[str, float]) -> dict[str, float]:
    """The most instructions that each promised name may take; one whose peer was not counted is left out."""
    of_peers = {name: average[peer] for name, peer in PROMISED_AS_PEER.items() if peer in average}
    return PROMISED | of_peers


def _layer_table(rows: list[Row]) -> Table:
    table = Table(title=f"3x3 layers, 462.4 M multiply-accumulates dense, {TARGET}: millions of instructions")
    estimated = [f"{core} Mcycles, est." for core in CORES]
    for name in ("layer", "kernel or engine", "density", "kernel", "pack", "total", "FMA", "bound", *estimated):
        table.add_column(name, justify="left" if name == "kernel or engine" else "right")
    for row in rows:
        counts = (row.kernel, row.pack, row.total, row.vector_fma, row.bound)
        table.add_row(
            row.layer,
            row.name,
            f"{row.density:.1%}",
            *("" if count is None else f"{count / 1e6:.2f}" for count in counts),
            *(f"{row.cycles[core] / 1e6:.1f}" if core in row.cycles else "?" for core in CORES),
        )
    return table


def _average_table(average: dict[str, float], promised: dict[str, float]) -> Table:
    table = Table(title="Average of the layers, packing included: millions of instructions")
    for name in ("kernel or engine", "average", "promised"):
        table.add_column(name, justify="left" if name == "kernel or engine" else "right")
    for name, count in average.items():
        limit = promised.get(name)
        verdict = "" if limit is None else f"<= {limit / 1e6:.1f} {'ok' if count <= limit else 'MISSED'}"
        table.add_row(name, f"{count / 1e6:.2f}", verdict)
    return table


def main() -> None:
    """Prints the tables, writes the JSON; exits with 1 when a promise is missed or cannot be checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/arm.json"))
    args = parser.parse_args()
    console = Console(width=130, highlight=False)
    if reason := EmulatedDevice().available():
        raise SystemExit(f"nothing can be counted: {reason}")
    missing: list[str] = []
    estimator = static_cycles.version()
    if estimator is None:
        missing.append("cycle estimates: no llvm-mca with a model of these cores")
    rows: list[Row] = []
    for channels, size in LAYERS:
        layer = random_layer(channels, size)
        with console.status(f"counting {channels}@{size}"):
            rows += [count_kernel(layer, *structure, cycles=bool(estimator)) for structure in STRUCTURES_COUNTED]
            rows += [count_kernel(layer, *structure, bool(estimator), HALF) for structure in HALF_COUNTED]
            for peer in PEERS:
                try:
                    rows.append(count_engine(peer, layer, cycles=bool(estimator)))
                except PconvgenError as error:
                    missing.append(f"{peer.name} on {channels}@{size}: {error}")
    average = averages(rows)
    promised = promises(average)
    console.print(_layer_table(rows))
    console.print(_average_table(average, promised))
    console.print(f"Counted under qemu. Cycles: static estimates, {estimator or 'none'}; the A76 as Neoverse N1.")
    for line in missing:
        console.print(f"[bold red]MISSING[/] {line}")
    results = {
        "target": TARGET,
        "estimator": estimator,
        "peers": {peer.name: peer.wheels for peer in PEERS},
        "missing": missing,
        "promised": promised,
        "average": average,
        "rows": [asdict(row) for row in rows],
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.json, json.dumps(results, indent=1) + "\n")
    expected = {*PROMISED, *PROMISED_AS_PEER}
    failed = [name for name in sorted(expected) if not average.get(name, np.inf) <= promised.get(name, -np.inf)]
    if failed:
        raise SystemExit(f"promises missed or not checked: {', '.join(failed)}")


if __name__ == "__main__":
    main()
