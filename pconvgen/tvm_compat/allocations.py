"""The tensors that "main" allocates once it is a sequence of kernel calls."""

from __future__ import annotations

import math

import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from pconvgen.tvm_compat.relax import Binding, Expr, Module, Var, dtype_of, is_op, shape_of, variables_of
from pconvgen.tvm_compat.rewriting import with_functions
from pconvgen.tvm_compat.tir import T, prim_func

HUGE_PAGE = 1 << 21
"""Bytes of a huge page of x86, and of 64-bit ARM with pages of 4 KiB."""
_MADV_HUGEPAGE = 14


def straight_bindings(module: Module) -> list[Binding]:
    """The bindings of all blocks of "main", in order."""
    return [binding for block in module["main"].body.blocks for binding in block.bindings]


def result_variables(module: Module) -> list[Var]:
    """The variables in what "main" returns."""
    return variables_of(module["main"].body.body)


def is_view(expr: Expr) -> bool:
    """Whether the value of `expr` lies in the memory of the variables in it, and needs none of its own."""
    views = ("relax.reshape", "relax.memory.view", "relax.memory.ensure_zero_offset")
    return isinstance(expr, relax.Var | relax.Tuple | relax.TupleGetItem) or is_op(expr, *views)


def is_kernel_call(module: Module, expr: Expr) -> bool:
    """Whether `expr` calls a TIR function of `module`, which reads and writes its arguments and keeps none."""
    called = expr.op if isinstance(expr, tvm.ir.Call) else None
    return isinstance(called, tvm.ir.GlobalVar) and isinstance(module[called], PrimFunc)


def allocated_bytes(expr: Expr) -> int | None:
    """The bytes of the tensor in main memory that `expr` allocates; None when it does not, or they are not known."""
    if not is_op(expr, "relax.builtin.alloc_tensor") or shape_of(expr) is None:
        return None
    if (int(expr.args[2].value), str(expr.args[3].value)) != (0, "global"):
        return None
    return math.prod(shape_of(expr) or ()) * -(-tvm.DataType(dtype_of(expr)).bits // 8)


def in_arena(module: Module, offsets: dict[Var, int], nbytes: int, *, huge_pages: bool) -> Module:
    """`module` with the tensors that "main" allocates at `offsets`, variable -> bytes, in one arena of `nbytes`.

    With `huge_pages`, "main" asks the system for them; that needs 64-bit Linux or Android, and two of them at least.
    """
    builder = relax.BlockBuilder()
    bindings: list[Binding] = []

    def bind(name: str, expr: Expr) -> Var:
        value = builder.normalize(expr)
        bindings.append(relax.VarBinding(relax.Var(name, value.ty), value))
        return bindings[-1].var

    arena = bind("arena", relax.op.memory.alloc_storage(relax.ShapeExpr([nbytes]), 0, "global", "uint8"))
    functions = {}
    if huge_pages:
        advise = tvm.ir.GlobalVar("advise")
        functions[advise] = _advise(nbytes)
        relax.expr._update_type(advise, functions[advise].ty)
        whole = relax.op.memory.alloc_tensor(arena, 0, relax.ShapeExpr([nbytes]), "uint8")
        bind("advised", relax.Call(advise, [bind("whole", whole)]))
    for binding in straight_bindings(module):
        offset = offsets.get(binding.var)
        if offset is None:
            bindings.append(binding)
            continue
        shape, dtype = binding.value.args[:2]
        tensor = relax.op.memory.alloc_tensor(arena, offset, shape, dtype.value)
        if offset:
            # Compiled kernels read the pointer and not the offset in a tensor; this moves the offset into the pointer.
            tensor = relax.op.memory.ensure_zero_offset(bind(f"{binding.var.name}_at", tensor))
        bindings.append(relax.VarBinding(binding.var, builder.normalize(tensor)))
    main = module["main"]
    body = builder.normalize(relax.SeqExpr([relax.BindingBlock(bindings)], main.body.body))
    arranged = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    return with_functions(module, {"main": arranged, **functions})


def _advise(nbytes: int) -> PrimFunc:
    """A kernel that asks for huge pages under a buffer, as far as whole ones fit wherever it begins.

    Kernels go from channel to channel, each of which has pages of its own: small ones are more than a TLB holds. Asking
    again for what is there already takes the system some microseconds.
    """
    with prim_func("advise") as get:
        buffer = T.arg("buffer", T.buffer((nbytes,), "uint8"))
        behind = T.handle_add_byte_offset(buffer.data, T.int64(HUGE_PAGE - 1))
        first = T.call_llvm_pure_intrin("handle", "llvm.ptrmask", behind, T.int64(-HUGE_PAGE))
        size = T.int64((nbytes - HUGE_PAGE) // HUGE_PAGE * HUGE_PAGE)
        T.evaluate(T.call_extern("int32", "madvise", first, size, T.int32(_MADV_HUGEPAGE)))
    return get().without_attr("global_symbol")
