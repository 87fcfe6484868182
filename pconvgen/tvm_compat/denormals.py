"""Denormal numbers are zero within kernels: as results and as operands, in every thread that takes part.

Intel's cores take far longer for an operation with one. The mode is the calling thread's, which gets its
own back; a thread of the pool switches for its share of a parallel loop, not in each iteration.

before: pack; parallel for c: filter
after:  mode = get; set mode | flush; pack; set mode
        in all threads: mode = get; set mode | flush; (this thread's share of) for c: filter; set mode

Wherever else control may leave a function, the mode is the caller's: where it returns, and at calls that may fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import tvm
from tvm import tirx
from tvm.target import codegen
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T
from tvm_ffi import VisitInterrupt, structural_map, structural_walk

from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Module
from pconvgen.tvm_compat.tir import Expr

Stmt = Any

_COMPUTE = "compute_scope"
"""TVM's attribute of what a function does behind the checks of its arguments."""
_LAUNCH = "pragma_parallel_launch_point"
"""TVM's attribute of what every thread of the pool runs; they divide the parallel loop in it among themselves."""

_FTZ_DAZ = 1 << 15 | 1 << 6
"""Bits of MXCSR: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 10.2.3."""
_FZ = 1 << 24
"""Bit of FPCR, and of FPSCR for what NEON does not compute: Arm Architecture Reference Manual for A-profile, FPCR."""
_FZ16 = 1 << 19
"""Bit of FPCR for arithmetic in float16; conversions keep denormal numbers of float16."""

_THROW = frozenset({"tirx.tvm_throw_last_error"})
_CALLS = frozenset({f"tirx.tvm_call_{kind}_lowered" for kind in ("packed", "cpacked", "trace_packed")})
"""Calls behind which control leaves the caller if they failed."""

_STOP = VisitInterrupt(True)
"""What ends a walk."""


@module_pass
class FlushDenormals:
    """TVM pass over functions whose calls and allocations are lowered: denormal numbers are zero in them."""

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module of functions that compute so and leave their caller's mode as it was."""
        return tvm.IRModule({var: _flushing(one) for var, one in module.functions.items()}, attrs=module.attrs)


def _flushing(function: PrimFunc) -> PrimFunc:
    target = function.attrs["target"]

    def replaced(node: Stmt) -> Stmt:
        return _with_body(node, _outside(node.body, target)) if node.attr_key == _COMPUTE else node

    return structural_map(function, (tirx.AttrStmt, replaced))


def _outside(stmt: Stmt, target: tvm.target.Target) -> Stmt:
    """What begins and ends in the caller's mode, and has it where control may leave the function in the middle."""
    if _is_parallel(stmt):
        return tirx.AttrStmt(0, _LAUNCH, tirx.const(1), _inside(stmt, target))
    if not _may_leave(stmt):
        return _inside(stmt, target) if _stores(stmt) else stmt
    if isinstance(stmt, tirx.SeqStmt):
        groups = [(leaves, list(group)) for leaves, group in groupby(stmt.seq, _may_leave)]
        parts = [part for leaves, group in groups for part in (group if leaves else [_sequence(group)])]
        return _sequence(_outside(part, target) for part in parts)
    if isinstance(stmt, tirx.IfThenElse):
        cases = (case and _outside(case, target) for case in (stmt.then_case, stmt.else_case))
        return tirx.IfThenElse(stmt.condition, *cases)
    return _with_body(stmt, _outside(stmt.body, target)) if isinstance(stmt, tirx.For | tirx.AttrStmt) else stmt


def _inside(stmt: Stmt, target: tvm.target.Target) -> Stmt:
    """What computes, between switching and switching back; what returns from there switches back before."""
    switch, back = _mode(target)

    def replaced(node: Stmt) -> Stmt:
        returns = isinstance(node, tirx.Return) or _is_call(node.value, _THROW)
        return _sequence([back, node]) if returns else node

    return _sequence([*switch, structural_map(stmt, ((tirx.Return, tirx.Evaluate), replaced)), back])


def _may_leave(stmt: Stmt) -> bool:
    """Whether control may leave a function in `stmt` by what `_inside` does not see: a launch, a call, an assertion."""
    kinds = (
        (tirx.AssertStmt, lambda _: _STOP),
        (tirx.For, lambda loop: _STOP if _is_parallel(loop) else None),
        (tvm.ir.Call, lambda call: _STOP if _is_call(call, _CALLS) else None),
    )
    return structural_walk(stmt, kinds, order="pre") is not None


def _stores(stmt: Stmt) -> bool:
    return structural_walk(stmt, (tirx.BufferStore, lambda _: _STOP)) is not None


def _is_parallel(stmt: Stmt) -> bool:
    return isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL


def _is_call(value: Expr, names: frozenset[str]) -> bool:
    return isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op) and value.op.name in names


def _with_body(stmt: Stmt, body: Stmt) -> Stmt:
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, body)
    return tirx.For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, None, stmt.annotations, stmt.step)


def _sequence(stmts: Iterable[Stmt]) -> Stmt:
    flat: list[Stmt] = []
    for stmt in stmts:
        flat.extend(stmt.seq if isinstance(stmt, tirx.SeqStmt) else [stmt])
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def _mode(target: tvm.target.Target) -> tuple[list[Stmt], Stmt]:
    """Statements that switch the mode, and the one that switches back."""
    triple = str(target.attrs.get("mtriple", ""))
    if triple.startswith("aarch64"):
        half = codegen.llvm_cpu_has_features("fullfp16", target)
        return _of_register("int64", "llvm.aarch64.{}.fpcr", _FZ | _FZ16 if half else _FZ)
    if triple.startswith("arm"):
        return _of_register("int32", "llvm.arm.{}.fpscr", _FZ)
    return _of_memory("llvm.x86.sse.{}mxcsr", _FTZ_DAZ)


def _of_register(dtype: str, name: str, flush: int) -> tuple[list[Stmt], Stmt]:
    """Of instructions between the mode and a register."""
    # Volatile: a register that loops in between have no use for would be held all the time. Aligned as the stack of
    # 32-bit ARM is: by TVM's own alignment the function would hold a register for its frame.
    before = tirx.decl_buffer((1,), dtype, "mode", data_alignment=8)
    memory = tirx.AllocBuffer(before, {"tirx.volatile": True})

    def write(mode: Expr) -> Stmt:
        return tirx.Evaluate(T.call_llvm_intrin("void", name.format("set"), mode))

    read = tirx.BufferStore(before, T.call_llvm_intrin(dtype, name.format("get")), [0])
    return [memory, read, write(before[0] | tirx.const(flush, dtype))], write(before[0])


def _of_memory(name: str, flush: int) -> tuple[list[Stmt], Stmt]:
    """Of instructions between the mode and memory."""
    modes = tirx.decl_buffer((2,), "int32", "modes")

    def call(what: str, index: int) -> Stmt:
        return tirx.Evaluate(T.call_llvm_intrin("void", name.format(what), T.address_of(modes[index])))

    flushing = tirx.BufferStore(modes, modes[0] | tirx.const(flush, "int32"), [1])
    return [tirx.AllocBuffer(modes), call("st", 0), flushing, call("ld", 1)], call("ld", 0)
