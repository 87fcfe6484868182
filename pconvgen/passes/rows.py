"""Softmax and moved axes become calls of their templates.

before: y = softmax(x, axis=1); z = permute_dims(y, [0, 2, 3, 1])
after:  y = call_tir(softmax, (x,)); z = call_tir(transpose, (y,))

A permutation that keeps the last axis in place copies runs of memory, which loops do as well, fused with others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pconvgen.templates.movement.transpose import TransposeKernel
from pconvgen.templates.operators.softmax import SoftmaxKernel
from pconvgen.tvm_compat.calls import Kernel, KernelCalls
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Expr, Module, Var, dtype_of, is_op, shape_of
from pconvgen.tvm_compat.rewriting import Emit, rewrite_main
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target


@module_pass
class LowerRows:
    """Relax pass that replaces softmax and permute_dims of float32 tensors of a known size in "main" by kernels.

    Parameters
    ----------
    target: what code is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = target.core.lanes(DType.FLOAT32)

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; what has no template stays for TVM's own legalisation."""
        kernels = KernelCalls()

        def rule(_var: Var, value: Expr, _emit: Emit) -> Expr:
            shape = shape_of(value)
            if not is_op(value, *_KERNELS) or not shape or not math.prod(shape) or dtype_of(value) != DType.FLOAT32:
                return value
            kernel = _KERNELS[value.op.name](value, self.lanes)
            return value if kernel is None else kernels.call(kernel, [value.args[0]], shape)

        return kernels.add_to(rewrite_main(module, rule))


def _softmax(value: Expr, lanes: int) -> Kernel:
    shape = shape_of(value) or ()
    return SoftmaxKernel(shape, int(value.attrs.axis) % len(shape), lanes)


def _transpose(value: Expr, lanes: int) -> Kernel | None:
    shape = shape_of(value.args[0])
    if shape is None:
        return None
    axes = tuple(map(int, value.attrs.axes)) if value.attrs.axes is not None else tuple(reversed(range(len(shape))))
    kernel = TransposeKernel(shape, tuple(axis % len(shape) for axis in axes), lanes)
    return kernel if kernel.moves_last else None


_KERNELS: dict[str, Callable[[Expr, int], Kernel | None]] = {
    "relax.nn.softmax": _softmax,
    "relax.permute_dims": _transpose,
}
