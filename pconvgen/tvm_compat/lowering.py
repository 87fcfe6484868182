"""From Relax to a sequence of kernel calls: TVM's own code for what is left, and memory for every result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.backend.cpu_generic import pipeline as cpu_pipeline

from pconvgen.tvm_compat.calls import Kernel, KernelCalls
from pconvgen.tvm_compat.passes import Pass, module_pass
from pconvgen.tvm_compat.relax import Module, constant


def legalise(target: tvm.target.Target) -> Pass:
    """The pass that gives every remaining operator TVM's own code, and fuses elementwise ones."""
    return _sequence(target, cpu_pipeline.library_dispatch_passes, cpu_pipeline.legalize_passes)


def call_kernels(target: tvm.target.Target) -> Pass:
    """The pass that makes "main" a sequence of kernel calls which write into tensors that it allocates.

    before: lv = call_tir(kernel, (x,))
    after:  alloc = builtin.alloc_tensor(...); kernel(x, alloc); lv = alloc
    """
    return _sequence(target, cpu_pipeline.dataflow_lower_passes)


def _sequence(target: tvm.target.Target, *stages: Callable[[tvm.target.Target], list[Pass]]) -> Pass:
    @module_pass
    def lower(module: Module, _context: object) -> Module:
        with target:
            return tvm.transform.Sequential([one for stage in stages for one in stage(target)])(module)

    return lower


def kernel_module(
    kernel: Kernel,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    constants: Sequence[NDArray[Any]],
    output: tuple[tuple[int, ...], str],
    target: tvm.target.Target,
) -> Module:
    """A module for `build` whose "main" is one call of a kernel.

    Parameters
    ----------
    kernel: what is called.
    inputs: name -> (shape, dtype) of the parameters: of the kernel's first argument, then of those behind `constants`.
    constants: the arguments between them.
    output: shape and dtype of the result.
    target: TVM's.
    """
    builder, calls = relax.BlockBuilder(), KernelCalls()
    parameters = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in inputs.items()]
    with builder.function("main", parameters):
        with builder.dataflow():
            args = [parameters[0], *map(constant, constants), *parameters[1:]]
            result = builder.emit_output(calls.call(kernel, args, *output))
        builder.emit_func_output(result)
    return call_kernels(target)(calls.add_to(builder.finalize()))
