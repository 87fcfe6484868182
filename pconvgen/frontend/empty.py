"""Tensors without elements, which nothing has to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import (
    Expr,
    Module,
    Var,
    constant,
    constant_value,
    dtype_of,
    is_op,
    op,
    op_name,
    shape_of,
)
from pconvgen.tvm_compat.rewriting import Emit, eliminate_dead_code, main_bindings, main_results, rewrite_main

_REDUCTIONS: dict[str, Callable[..., Any]] = {"relax.sum": np.sum, "relax.prod": np.prod, "relax.mean": np.mean}


@module_pass
class RemoveEmptyTensors:
    """What has no elements becomes a constant, and so does what is computed from nothing.

    before: a = strided_slice(x, begin=0, end=0); b = relu(a); c = concat(x, b); d = sum(a); e = matmul(a, w)
    after:  c = concat(x); d = 0; e = zeros(...)
    """

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; one in which everything has elements is returned as it is."""
        if all(0 not in (shape_of(binding.var) or ()) for binding in main_bindings(module) or []):
            return module
        given, results = module["main"].params[0], set(main_results(module))

        def rule(var: Var, value: Expr, emit: Emit) -> Expr:
            if var in results and 0 in (shape_of(value) or ()):
                return _filled(shape_of(value) or (), dtype_of(value), given, emit)
            return _rule(value)

        rewritten = rewrite_main(module, rule)
        return eliminate_dead_code(rewritten)


def _filled(shape: tuple[int, ...], dtype: str, given: Expr, emit: Emit) -> Expr:
    """An output without elements: filled with a number of the input `given`, as a library holds no empty constant."""
    numbers = emit(op.reshape(given, (-1,)))
    number = emit(op.strided_slice(numbers, axes=[0], begin=[0], end=[1]))
    number = emit(op.astype(emit(op.reshape(number, ())), dtype))
    return op.full(shape, number, dtype)


def _rule(value: Expr) -> Expr:
    shape = shape_of(value)
    if shape is None or constant_value(value) is not None:
        return value
    if 0 in shape:
        return constant(np.zeros(shape, dtype_of(value)))
    if is_op(value, "relax.concat"):
        fields = [field for field in value.args[0].fields if 0 not in (shape_of(field) or ())]
        if len(fields) == 1:
            return fields[0]
        return op.concat(fields, value.attrs.axis)
    if not getattr(value, "args", ()) or 0 not in (shape_of(value.args[0]) or ()):
        return value
    if is_op(value, "relax.matmul"):
        return constant(np.zeros(shape, dtype_of(value)))
    reduce, data = _REDUCTIONS.get(op_name(value)), constant_value(value.args[0])
    if reduce is None or data is None:
        return value
    axes = None if value.attrs.axis is None else tuple(int(axis) for axis in value.attrs.axis)
    with np.errstate(all="ignore"):
        return constant(np.asarray(reduce(data, axes, keepdims=bool(value.attrs.keepdims)), dtype_of(value)))
