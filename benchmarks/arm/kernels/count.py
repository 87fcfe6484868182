"""Counting kernels and other engines' dense layers under emulation."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tvm import relax

from benchmarks.arm.peers import TARGET, Peer, count_peer
from benchmarks.layer_data import Data, layer_model, random_data, reference
from benchmarks.layers import DENSE, square
from benchmarks.models.exported import Exported
from pconvgen.devices import static_cycles
from pconvgen.devices.counts import Span
from pconvgen.devices.device import Model
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError
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
from pconvgen.values.workload import ConvWorkload

LAYERS = ((64, 112), (128, 56), (256, 28), (512, 14))
"""Channels in and out, height and width: 462.4 million multiply-accumulates each."""
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
    data: Data


def random_layer(channels: int, size: int) -> DenseLayer:
    """A dense layer with random data; always the same for the same shape."""
    workload = square(channels, channels, size)
    return DenseLayer(workload, random_data(workload, DENSE, 1.0))


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
    weight = layer.data.weight
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
    expected = reference(w, weight, layer.data.data, layer.data.bias)
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
    w, source, calls = layer.workload, layer.data.data, KernelCalls()
    data = relax.Var("data", relax.TensorType(source.shape, formats.activations))
    builder = relax.BlockBuilder()
    with builder.function("main", [data]):
        with builder.dataflow():
            value = data
            if pack:
                value = builder.emit(calls.call(pack, [data], (w.batch, pack.target.size), pack.formats[1]))
            if expected is not None:
                args = [value, *map(constant, instance.constants), constant(layer.data.bias.astype(formats.arithmetic))]
                call = calls.call(instance.kernel, args, layer.data.expected.shape, formats.activations)
                value = builder.emit(call)
            output = builder.emit_output(value)
        builder.emit_func_output(output)
    executable = build(calls.add_to(builder.get()), llvm_target(target), {})
    with tempfile.TemporaryDirectory(prefix="pconvgen-arm-") as folder:
        path = Path(folder) / "model.so"
        export_library(executable, str(path), library_linker(target))
        model = Model(path, (("data", source.shape, formats.activations),), ("output",), target.name)
        outputs, span = EmulatedDevice().profile(model, {"data": source.astype(formats.activations)})
    if expected is not None:
        error = float(np.abs(outputs["output"] - expected).max() / np.abs(expected).max())
        limit = TOLERANCE[formats.arithmetic]
        if not error < limit:
            raise PconvgenError("the kernel computes another layer", found=f"error {error:.1e}", expected=limit)
    return span


def count_engine(peer: Peer, layer: DenseLayer, cycles: bool) -> Row:
    """Counts another engine's dense kernel."""
    w, data = layer.workload, layer.data
    with tempfile.TemporaryDirectory(prefix="pconvgen-layer-") as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer_model(w, data), str(path))
        span = count_peer(peer, Exported(path, {"data": data.data}, {"out": data.expected}), TARGET)
    return Row(
        layer=f"{w.in_channels}@{w.height}",
        name=peer.name,
        density=1.0,
        kernel=None,
        pack=None,
        total=span.instructions,
        vector_fma=span.classes["vector_fma"],
        bound=data.weight.size * w.out_height * w.out_width // 4,
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
