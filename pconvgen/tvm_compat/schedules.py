"""Schedules of TIR functions that TVM's legalisation made, and what their blocks access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.s_tir import Schedule as PrimFuncSchedule
from tvm.s_tir.dlight.analysis import SBlockInfo as BlockInfo
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.schedule import ScheduleError as ScheduleError
from tvm.sym import Analyzer
from tvm.sym.pattern import detect_linear_equation
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T
from tvm_ffi import structural_map, structural_walk

from pconvgen.tvm_compat.relax import Module, op_name
from pconvgen.tvm_compat.rewriting import eliminate_dead_code, with_functions
from pconvgen.tvm_compat.tir import OPAQUE, Expr
from pconvgen.values.dtype import DType


def map_functions(module: Module, change: Callable[[PrimFunc], PrimFunc]) -> Module:
    """`module` with every TIR function replaced by what `change` makes of it."""
    functions = module.functions.items()
    return with_functions(
        module, {variable: change(function) for variable, function in functions if isinstance(function, PrimFunc)}
    )


def is_scheduled(function: PrimFunc) -> bool:
    """Whether a TIR function says that it needs no schedule."""
    return bool(function.attrs and function.attrs.get("tirx.is_scheduled"))


def marked_scheduled(schedule: PrimFuncSchedule) -> PrimFunc:
    """The function of a schedule, for FuseOps and others to leave alone."""
    return schedule.mod["main"].with_attr("tirx.is_scheduled", True).with_attr("op_pattern", OPAQUE)


def blocks_of(schedule: PrimFuncSchedule) -> list[BlockInfo]:
    """The blocks of a function, each brought to one loop for each of its axes; none when that cannot be done.

    A block of a single number gets a loop of one round: `rfactor` fails where any block of a function has none.
    """
    blocks = list(normalize_prim_func(schedule) or [])
    for info in blocks:
        if not schedule.get_loops(info.block_rv):
            schedule.add_unit_loop(info.block_rv)
    return blocks


def coefficients(region: Expr, axes: list[Expr]) -> list[int | None]:
    """By how many elements the beginning of a region of a buffer moves with each of `axes`; None: not by a constant."""
    sizes = [int(size) for size in region.source.shape]
    strides = [int(np.prod(sizes[axis + 1 :], dtype=np.int64)) for axis in range(len(sizes))]
    place = sum((each.min * stride for each, stride in zip(region.region, strides, strict=True)), T.int64(0))
    found: list[int | None] = []
    for axis in axes:
        linear = detect_linear_equation(Analyzer().simplify(place), [axis])
        number = linear[0] if linear else None
        found.append(int(number) if isinstance(number, tvm.tirx.IntImm) else None)
    return found


def replace_calls(function: PrimFunc, name: str, expression: Callable[..., Any]) -> PrimFunc:
    """`function` with calls of the operator `tirx.name` on float32 scalars as expression(lanes, argument, bind)."""

    def replaced(call: Expr) -> Expr:
        if op_name(call).rpartition(".")[2] != name or str(call.ty.dtype) != DType.FLOAT32:
            return call
        bound: list[tuple[Expr, Expr]] = []

        def bind(value: Expr) -> Expr:
            variable = tvm.tirx.Var(name, value.ty.dtype)
            bound.append((variable, value))
            return variable

        result = expression(1, bind(call.args[0]), bind)
        for variable, value in reversed(bound):
            result = tvm.tirx.Let(variable, value, result)
        return result

    return structural_map(function, (tvm.ir.Call, replaced))


def from_infinity(function: PrimFunc) -> PrimFunc:
    """`function` with maxima and minima that begin with an infinity; TVM's begin with the largest finite number.

    before: out[i] = -3.4e38; for j: out[i] = max(out[i], x[i, j])        # -3.4e38 when all are -inf
    after:  out[i] = -inf;    for j: out[i] = max(out[i], x[i, j])
    """
    reduced: list[Expr] = []

    def find(store: Expr) -> None:
        if isinstance(store.value, tvm.tirx.Max | tvm.tirx.Min):
            operands = (store.value.a, store.value.b)
            if any(store.buffer.same_as(getattr(each, "source", None)) for each in operands):
                reduced.append(store.buffer)

    def replaced(store: Expr) -> Expr:
        value, kind = store.value, str(store.buffer.dtype)
        begins = isinstance(value, tvm.tirx.FloatImm) and abs(float(value.value)) == np.finfo(kind).max
        if not begins or not any(store.buffer.same_as(buffer) for buffer in reduced):
            return store
        infinity = tvm.tirx.FloatImm(kind, np.copysign(np.inf, float(value.value)))
        return tvm.tirx.BufferStore(store.buffer, infinity, store.indices)

    structural_walk(function, (tvm.tirx.BufferStore, find))
    return structural_map(function, (tvm.tirx.BufferStore, replaced))


def in_conditions(block: Any, axes: list[Expr]) -> list[bool]:
    """For each of `axes`, whether a condition inside of a block depends on it."""
    conditions: list[Expr] = []
    found: list[Expr] = []

    def call(node: Expr) -> None:
        if op_name(node).endswith(".if_then_else"):
            conditions.append(node.args[0])

    selects = (tvm.tirx.Select, lambda select: conditions.append(select.condition))
    structural_walk(block.body, ((tvm.ir.Call, call), selects))
    for condition in conditions:
        structural_walk(condition, (tvm.ir.Var, found.append))
    return [any(axis.same_as(variable) for variable in found) for axis in axes]


def dataflow_views(module: Module) -> Module:
    """`module` with reshapes, which TVM has made loops of, as views of their data."""
    return eliminate_dead_code(relax.transform.RewriteDataflowReshape()(module))
