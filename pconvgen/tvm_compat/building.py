"""From lowered modules to libraries: kernels become object files, "main" becomes instructions of TVM's virtual machine.

Kernels are compiled in parts, by as many threads as there are cores: TVM and LLVM work without Python's lock, and take
less time for several small modules than for a large one. Constants never go through TVM's serialiser or LLVM.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import relax
from tvm.relax import vm_build
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline
from tvm.tirx import PrimFunc

from pconvgen.affinity import usable_cores
from pconvgen.elf import write_data_object
from pconvgen.tvm_compat.constants import with_constants, without_constants
from pconvgen.tvm_compat.passes import Pass, apply
from pconvgen.tvm_compat.pipeline import CPU_PIPELINE
from pconvgen.tvm_compat.relax import Module, constant
from pconvgen.tvm_compat.tir import T, prim_func
from pconvgen.watch import step

OPTIONS = {"tirx.disable_storage_rewrite": True, "tirx.disable_assert": True}
"""Options of TVM's passes.

Without StorageRewrite, which would let a narrow accumulator live in the memory of a wide one of another tile; LLVM then
keeps both in registers of the wide one's size, and every FMA on the narrow one becomes three instructions.
Without every kernel's checks of its arguments, three quarters of a library: Relax has checked the model's inputs.
"""

PART = 4
"""Kernels of one part: enough that LLVM's start, some milliseconds, does not count, and few enough to share out."""

PACKED = "__tvm_ffi__library_bin"
"""The symbol by which TVM's loader finds what a library holds beside code."""


@dataclass(frozen=True, eq=False)
class Executable:
    """A compiled module.

    Attributes
    ----------
    objects: object files of the kernels.
    packed: what TVM's loader reads beside code, with stand-ins for the constants.
    constants: the arrays themselves.
    """

    objects: tuple[bytes, ...]
    packed: bytes
    constants: tuple[NDArray[Any], ...]


def build(module: Module, target: tvm.target.Target, constants: dict[str, NDArray[Any]]) -> Executable:
    """Compiles a legalised module; each of `constants` becomes a function without parameters that returns it."""
    module = tvm.ir.IRModule(module.functions, attrs=module.attrs)
    for name, value in constants.items():
        body = relax.BlockBuilder().normalize(relax.SeqExpr([], constant(value)))
        function = relax.Function([], body, relax.TensorType(value.shape, str(value.dtype)), is_pure=True)
        module[name] = function.with_attr("global_symbol", name)
    with tvm.transform.PassContext(config=OPTIONS), target:
        module, arrays = without_constants(_to_calls(target)(module))
        builder = relax.ExecBuilder()
        functions = vm_build._vmcodegen(builder, module).functions
        linked = vm_build._ffi_api.VMLink(builder, target, None, [], {})
    packed = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(linked)
    kernels = {variable: function for variable, function in functions.items() if isinstance(function, PrimFunc)}
    return Executable(tuple(_objects(kernels, target)), packed.numpy().tobytes(), arrays)


def compile_module(module: Module, target: tvm.target.Target) -> tvm.runtime.Executable:
    """A module for this process, in one piece: TVM's own, of the same passes as what `build` makes."""
    with tvm.transform.PassContext(config=OPTIONS):
        return tvm.compile(module, target=target, relax_pipeline=_to_calls(target), tir_pipeline=CPU_PIPELINE)


def _to_calls(target: tvm.target.Target) -> Pass:
    """What makes "main" calls of the virtual machine; without legalisation, which was done and would copy views."""
    return tvm.transform.Sequential(cpu_pipeline.dataflow_lower_passes(target) + cpu_pipeline.finalize_passes(target))


def _objects(kernels: dict[tvm.ir.GlobalVar, PrimFunc], target: tvm.target.Target) -> Iterator[bytes]:
    """Object files of the kernels, the same on any number of cores."""
    if not kernels:
        # A library without code would not say what machine it is for.
        with prim_func("nothing") as get:
            T.evaluate(0)
        kernels = {tvm.ir.GlobalVar("nothing"): get().with_attr("global_symbol", "nothing")}
    items = list(kernels.items())
    count = -(-len(items) // PART)
    # Kernels of like layers follow each other: large ones are dealt out.
    parts = [dict(items[first::count]) for first in range(count)]
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder, ThreadPoolExecutor(usable_cores()) as pool:
        futures = [
            pool.submit(apply, _object, part, target, Path(folder) / f"{number}.o") for number, part in enumerate(parts)
        ]
        try:
            for number, future in enumerate(futures, 1):
                step(f"part {number} of {len(parts)}")
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _object(kernels: dict[tvm.ir.GlobalVar, PrimFunc], target: tvm.target.Target, path: Path) -> bytes:
    with tvm.transform.PassContext(config=OPTIONS):
        tvm.tirx.build(tvm.ir.IRModule(kernels), target=target, pipeline=CPU_PIPELINE).write_to_file(str(path))
    return path.read_bytes()


def export_library(executable: Executable, output: str, linker: Callable[[str, Sequence[str]], None]) -> None:
    """Writes an executable as a shared library, which `linker` makes of object files."""
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        files = [Path(folder) / f"{number}.o" for number in range(len(executable.objects))]
        for path, code in zip(files, executable.objects, strict=True):
            path.write_bytes(code)
        data = Path(folder) / "data.o"
        with data.open("wb") as file:
            pieces = with_constants(executable.packed, executable.constants)
            write_data_object(file, executable.objects[0], PACKED, pieces)
        linker(output, [str(path) for path in (*files, data)])
