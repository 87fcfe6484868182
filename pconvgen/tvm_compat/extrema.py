"""The larger and the smaller of two numbers, as PyTorch has them: if one is NaN, so is the answer.

before: max(a, b)                                   # a > b ? a : b for TVM, which is b when one is NaN
after:  llvm.maximum(a, b)                          # ARM: one instruction
        max(a, b)                                   # x86, a NaN only if b is, as a number is not: one instruction
        a <= inf ? max(a, b) : a                    # x86 otherwise: vmaxps, and what keeps a NaN of a

Such extrema are symmetric and associative: in whatever order TVM has brought them, they mean the same.
"""

from __future__ import annotations

import math

import tvm
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T
from tvm_ffi import structural_map, structural_walk

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Module
from pconvgen.tvm_compat.tir import Expr

MOST_REPEATED = 64
"""Nodes of an expression that is written several times; of larger ones x86 gets the dozen instructions of LLVM's."""


@module_pass
class HandOnNan:
    """TVM pass that gives extrema of floats the operations of each function's target that hand on NaN."""

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module without Max and Min of floats."""
        functions = {var: _lowered(function) for var, function in module.functions.items()}
        return tvm.IRModule(functions, attrs=module.attrs)


def _lowered(function: PrimFunc) -> PrimFunc:
    triple = str(function.attrs["target"].attrs.get("mtriple", ""))
    lower = _as_instruction if triple.startswith(("aarch64", "arm")) else _as_comparison
    bound: dict[Expr, Expr] = {}
    structural_walk(function, (tvm.tirx.Bind, lambda bind: bound.update({bind.var: bind.value})))

    def replaced(node: Expr) -> Expr:
        return lower(node, bound) if str(node.ty.dtype).startswith("float") else node

    return structural_map(function, ((tvm.tirx.Max, tvm.tirx.Min), replaced))


def _as_instruction(node: Expr, _bound: dict[Expr, Expr]) -> Expr:
    name = "llvm.maximum" if isinstance(node, tvm.tirx.Max) else "llvm.minimum"
    return T.call_llvm_pure_intrin(node.ty, name, node.a, node.b)


def _as_comparison(node: Expr, bound: dict[Expr, Expr]) -> Expr:
    kind = type(node)
    for a, b in ((node.a, node.b), (node.b, node.a)):
        if _nan_with(a, b, bound):
            return kind(a, b)
    a, b = sorted((node.a, node.b), key=_repeated)
    # Halves of a vector, to find the extreme of its lanes: LLVM searches chains of comparisons for NaN, which takes
    # seconds for the four of a row, and a row has them once.
    if _repeated(a) > MOST_REPEATED or isinstance(a, tvm.tirx.Shuffle):
        return _as_instruction(node, bound)
    # The condition is a == a, which TVM would take for true.
    return tvm.tirx.Select(a <= _infinity(a), kind(a, b), a)


def _repeated(value: Expr) -> float:
    """What it costs LLVM to find that an expression is there several times: its size; what binds names cannot be."""
    nodes: list[Expr] = []
    structural_walk(value, (tvm.ir.Expr, nodes.append))
    return math.inf if any(isinstance(node, tvm.tirx.Let) for node in nodes) else len(nodes)


def _nan_with(a: Expr, b: Expr, bound: dict[Expr, Expr]) -> bool:
    """Whether `a` is NaN only where `b` is: a number, or a multiple of `b`."""
    a = bound.get(a, a)
    if isinstance(a, tvm.tirx.Mul):
        pairs: tuple[tuple[Expr, Expr], ...] = ((a.a, a.b), (a.b, a.a))
        return any(other.same_as(b) and 0 < abs(_number(factor) or 0) < math.inf for factor, other in pairs)
    return _number(a) is not None


def _number(value: Expr) -> float | None:
    """The number that a constant is, or a vector of one; None for anything else, and for NaN."""
    scalar = value.value if isinstance(value, tvm.tirx.Broadcast) else value
    number = float(scalar.value) if isinstance(scalar, tvm.tirx.FloatImm) else math.nan
    return None if math.isnan(number) else number


def _infinity(like: Expr) -> Expr:
    """Infinity as a number or a vector of the type of another."""
    kind = like.ty.dtype
    number = tvm.tirx.FloatImm(kind.with_lanes(1), math.inf)
    return number if kind.lanes == 1 else T.Broadcast(number, kind.lanes)
