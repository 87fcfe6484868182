"""Resizing: every element of a resized axis is a weighted sum of a few elements of the axis before.

before: y = call_dps_packed("pconvgen.resample", (x, axes, row_index, row_weight, column_index, column_weight))
after:  y = call_tir(resize, (x, row_index, row_weight, column_weight))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.movement.resize import ResizeKernel
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.packed import packed_arguments, packed_call, weighted_takes
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant, constant_value, dtype_of, op, shape_of
from pconvgen.tvm_compat.rewriting import Emit, rewrite_main
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target

Taps = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Elements to read, and their weights, both [terms, outputs]; indices outside mean the border."""

RESAMPLE = "pconvgen.resample"
BORDER = 4
"""Elements outside that indices may tell apart, so that taps near the border look like the others."""


def resample(data: Expr, axes: Mapping[int, Taps]) -> Expr:
    """`data` with some axes resized: the operator that LowerResizes computes."""
    shape = list(shape_of(data) or ())
    arguments = [data, constant(np.array(list(axes), np.int64))]
    for axis, (indices, weights) in axes.items():
        arguments += [constant(np.clip(indices, -BORDER, shape[axis] - 1 + BORDER)), constant(weights)]
        shape[axis] = indices.shape[1]
    return packed_call(RESAMPLE, arguments, tuple(shape), dtype_of(data))


@module_pass
class LowerResizes:
    """Relax pass that replaces the resizing in "main" by generated kernels for its last two axes.

    Parameters
    ----------
    target: what code is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = target.core.lanes(DType.FLOAT32)

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; other axes, and what has no kernel, become sums of elements that are taken one by one."""
        kernels = KernelCalls()

        def rule(_var: Var, value: Expr, emit: Emit) -> Expr:
            arguments = packed_arguments(value, RESAMPLE)
            return value if arguments is None else _lowered(arguments, self.lanes, kernels, emit)

        return kernels.add_to(rewrite_main(module, rule))


def _lowered(arguments: list[Expr], lanes: int, kernels: KernelCalls, emit: Emit) -> Expr:
    data, numbers, *rest = arguments
    taps: list[Any] = [constant_value(each) for each in rest]
    axes: dict[int, Taps] = dict(zip(map(int, _array(numbers)), zip(taps[::2], taps[1::2], strict=True), strict=True))
    rank = len(shape_of(data) or ())
    plane = {axis: taps for axis, taps in axes.items() if axis >= rank - 2}
    for axis in axes.keys() - plane.keys():
        data = weighted_takes(data, axis, *axes[axis], emit)
    if not plane:
        return data
    result = _planes(data, plane, lanes, kernels, emit)
    if result is None:
        for axis, each in plane.items():
            data = weighted_takes(data, axis, *each, emit)
        return data
    return result


def _planes(data: Expr, axes: Mapping[int, Taps], lanes: int, kernels: KernelCalls, emit: Emit) -> Expr:
    """The last two axes resized by a kernel; None where there is none."""
    shape = shape_of(data) or ()
    rank = len(shape)
    if dtype_of(data) != DType.FLOAT32 or not math.prod(shape) or any(not taps[0].size for taps in axes.values()):
        return None
    # Rows that stay as they are, such as those of signals, are planes of one row.
    height = shape[-2] if rank - 2 in axes else 1
    size = (height, shape[-1])
    images = rank == 4 and rank - 2 in axes
    planes = (shape[0], shape[1]) if images else (1, math.prod(shape) // math.prod(size))
    rows, columns = axes.get(rank - 2, _same(height)), axes.get(rank - 1, _same(shape[-1]))
    terms = max(len(rows[0]), len(columns[0]))
    rows, columns = _with_terms(rows, terms), _with_terms(columns, terms)
    output = (rows[0].shape[1], columns[0].shape[1])
    picks = tuple(tuple(map(int, each)) for each in columns[0])
    kernel = ResizeKernel(planes, size, output, picks, lanes)
    if not kernel.feasible:
        return None
    arguments = [np.clip(rows[0], 0, height - 1).astype(np.int32), *([rows[1], columns[1]] if terms > 1 else [])]
    if shape != (*planes, *size):
        data = emit(op.reshape(data, (*planes, *size)))
    result = kernels.call(kernel, [data, *map(constant, arguments)], (*planes, *output))
    after = tuple(axes[axis][0].shape[1] if axis in axes else shape[axis] for axis in range(rank))
    return result if after == (*planes, *output) else op.reshape(emit(result), after)


def _array(expr: Expr) -> NDArray[Any]:
    array = constant_value(expr)
    assert array is not None
    return array


def _same(size: int) -> Taps:
    return np.arange(size)[None], np.ones((1, size), np.float32)


def _with_terms(taps: Taps, terms: int) -> Taps:
    """The same sums with more terms, of no weight."""
    indices, weights = taps
    more = terms - len(indices)
    return np.concatenate([indices, *[indices[:1]] * more]), np.pad(weights, ((0, more), (0, 0)))
