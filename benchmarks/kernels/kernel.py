"""Kernels of single layers, compiled and ready to be timed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tvm

from benchmarks.layer_data import Data, random_data
from benchmarks.layers import Layer, Pruning
from benchmarks.measuring import REPEATS, Reading, Subject
from pconvgen.planning.search import Choice, rank
from pconvgen.sparsity import STRUCTURES, encode
from pconvgen.templates.family import DIRECT, instantiate
from pconvgen.templates.movement.pack import input_pack
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

REPEAT_MS = 1.0


@dataclass(frozen=True)
class Kernel:
    """One layer, compiled and ready to be timed.

    Attributes
    ----------
    data: what it computes.
    encoding: how its weight is stored.
    schedule: its schedule's values.
    index_bytes: bytes of its indices.
    subjects: what is timed: "kernel", and "pack" if its input is packed.
    """

    data: Data
    encoding: str
    schedule: dict[str, Any]
    index_bytes: int
    subjects: dict[str, Subject]


def prepare(layer: Layer, pruning: Pruning, density: float, target: Target) -> Kernel:
    """Compiles one layer.

    Of all the ways to store a weight, those of the structure that it was pruned to compete, as they do in the compiler.

    Raises ValueError when the kernel's output is not PyTorch's.
    """
    w = layer.workload
    data = random_data(w, pruning, density)
    found = STRUCTURES[pruning.structure].detect(data.weight, w.groups)
    # Kernels are measured by the share of the peak that surviving weights have: Winograd's would have more than all.
    choice = rank(w, found, target.core, families=DIRECT)[0]
    return build(w, data, choice, target, f"{pruning.name} at {density:g} on {layer.group} {layer.name}")


def build(w: ConvWorkload, data: Data, choice: Choice, target: Target, what: str) -> Kernel:
    """Compiles a layer as `choice` says.

    Raises ValueError, with `what` was compiled, when the kernel's output is not PyTorch's.
    """
    encoding = encode(data.weight, choice.candidate, w.groups, choice.max_group)
    instance, pack = instantiate(w, encoding, choice.schedule, target.core.isa, choice.places), None
    if choice.places is not None:
        pack = input_pack(w.batch, choice.places.source, target.core.lanes(DType.FLOAT32))
    functions = {"kernel": instance.kernel.build()} | ({"pack": pack.build()} if pack else {})
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    library = compile_module(module, llvm_target(target))

    source, arguments = tvm.runtime.tensor(data.data), {}
    if pack:
        packed = tvm.runtime.tensor(np.zeros((w.batch, pack.target.size), np.float32))
        arguments["pack"] = (source, packed)
        library["pack"](source, packed)
        source = packed
    out = tvm.runtime.tensor(np.full(data.expected.shape, np.nan, np.float32))
    constants = map(tvm.runtime.tensor, map(np.ascontiguousarray, instance.constants))
    arguments["kernel"] = (source, *constants, tvm.runtime.tensor(data.bias), out)
    library["kernel"](*arguments["kernel"])
    data.check(out.numpy(), what)
    return Kernel(
        data=data,
        encoding=str(choice.candidate),
        schedule=asdict(choice.schedule) | ({"source": str(choice.places.source)} if choice.places else {}),
        index_bytes=sum(array.nbytes for array in instance.constants if array.dtype.kind == "i"),
        subjects={name: _timer(library, name, arguments[name]) for name in ("kernel", "pack") if name in arguments},
    )


def _timer(library: Any, name: str, args: tuple[Any, ...]) -> Subject:
    """Reads the median of a few repeats of about a millisecond each."""
    first = min(library.mod.time_evaluator(name, tvm.cpu(), number=1, repeat=REPEATS)(*args).results)
    number = max(1, round(1e-3 * REPEAT_MS / first))
    evaluate = library.mod.time_evaluator(name, tvm.cpu(), number=number, repeat=REPEATS)

    def read() -> Reading:
        wall, core = time.perf_counter(), time.process_time()
        ms = 1e3 * float(np.median(evaluate(*args).results))
        return Reading(ms, (time.process_time() - core) / (time.perf_counter() - wall))

    return read
