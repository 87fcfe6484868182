"""Calls of generated kernels out of Relax."""

from __future__ import annotations

from itertools import count
from typing import Protocol

import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from pconvgen.tvm_compat.relax import Expr, Module
from pconvgen.tvm_compat.rewriting import with_functions


class Kernel(Protocol):
    """A template with all that its code depends on, hashable; equal kernels are the same code."""

    def build(self) -> PrimFunc:
        """The kernel as a TIR function; each template says what its arguments are."""


class KernelCalls:
    """Calls of TIR kernels in a Relax function; equal kernels become one function of the module.

    Names that functions of `module` have are left to them.
    """

    def __init__(self, module: Module | None = None) -> None:
        self._functions: dict[Kernel, tuple[tvm.ir.GlobalVar, PrimFunc]] = {}
        self._taken = set() if module is None else {variable.name_hint for variable in module.get_global_vars()}

    def call(self, kernel: Kernel, args: list[Expr], shape: tuple[int, ...], dtype: str = "float32") -> Expr:
        """call_tir of `kernel` whose output has `shape` and `dtype`."""
        return relax.call_tir(self._function(kernel), args, relax.TensorType(shape, dtype))

    def call_inplace(self, kernel: Kernel, args: list[Expr], shape: tuple[int, ...], dtype: str = "float32") -> Expr:
        """The same for a kernel that writes a part of its last argument, which has `shape` and is the result."""
        out = relax.TensorType(shape, dtype)
        return relax.call_tir_inplace(self._function(kernel), args, [len(args) - 1], out)

    def _function(self, kernel: Kernel) -> tvm.ir.GlobalVar:
        if kernel not in self._functions:
            function = kernel.build()
            names = (f"{type(kernel).__name__.removesuffix('Kernel').lower()}_{number}" for number in count())
            name = next(name for name in names if name not in self._taken)
            self._taken.add(name)
            variable = tvm.ir.GlobalVar(name)
            relax.expr._update_type(variable, function.ty)
            self._functions[kernel] = variable, function.without_attr("global_symbol")
        return self._functions[kernel][0]

    def add_to(self, module: Module) -> Module:
        """`module` with the kernels that were called."""
        return with_functions(module, dict(self._functions.values()))
