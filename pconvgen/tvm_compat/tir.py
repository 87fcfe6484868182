"""What templates write kernels with: TIR functions, vectors in registers, loads and shuffles.

`T` is TVM's language for TIR; what follows is what that lacks, or spells otherwise in every version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from pconvgen.values.dtype import DType

Expr = Any
"""An expression of TIR, of a scalar or a vector, or a number in its place; Any, as versions of TVM move its classes."""

Buffer = Any
"""A tensor or an array of a kernel: `buffer[index]` is an expression, `T.buffer_store` a statement."""

OPAQUE = 8
"""TOpPattern that FuseOps leaves alone."""

FLAT = "pconvgen.flat"
"""The attribute of kernels that are loops and straight lines of vectors, see `pipeline`."""


@contextmanager
def prim_func(name: str, *, flat: bool = False) -> Iterator[Callable[[], PrimFunc]]:
    """Opens a scheduled, opaque TIR function; call what it yields after the block to get the function.

    noalias promises LLVM that the arguments do not overlap, so that accumulators stay in registers. A `flat` function
    has no conditions to hoist and no divisions to simplify: passes that look for them are left out, see `pipeline`.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE, FLAT: flat})
        yield builder.get


def const_int64(value: int) -> Expr:
    """A 64-bit integer constant."""
    return T.int64(value)


def ramp(base: Expr, lanes: int) -> Expr:
    """Index of `lanes` consecutive elements from `base`; the element itself when lanes is 1."""
    return T.Ramp(base, 1, lanes) if lanes > 1 else base


def broadcast(scalar: Expr, lanes: int) -> Expr:
    """A vector of `lanes` equal elements; the scalar itself when lanes is 1."""
    return T.Broadcast(scalar, lanes) if lanes > 1 else scalar


def lane(vector: Expr, index: int) -> Expr:
    """One element of a vector in a register."""
    return T.Shuffle([vector], [index])


def part(vector: Expr, start: int, lanes: int) -> Expr:
    """Elements [start, start + lanes) of a vector in a register."""
    return T.Shuffle([vector], list(range(start, start + lanes))) if lanes > 1 else lane(vector, start)


def element_of(value: Expr) -> str:
    """The type of a scalar, or of a vector's elements, e.g. "float16"."""
    return str(value.ty).partition("x")[0]


def lanes_of(value: Expr) -> int:
    """Elements of a vector; 1 for a scalar."""
    return int(str(value.ty).partition("x")[2] or 1)


def cast(value: Expr, element: str) -> Expr:
    """A scalar or a vector with its elements converted to another type."""
    return value if element_of(value) == element else T.Cast(_vector_type(element, lanes_of(value)), value)


def number(value: float, element: str, lanes: int) -> Expr:
    """A vector of `lanes` equal numbers; what is too large for the type is infinite there."""
    if element == DType.FLOAT16 and abs(value) > DType.FLOAT16.largest:
        value = math.copysign(math.inf, value)
    return broadcast(getattr(T, element)(value), lanes)


def intrinsic(name: str, vector: Expr, element: str, result: str, lanes: int) -> Expr:
    """An LLVM intrinsic on a vector whose bits it takes as `element`, with a vector of `result`."""
    bits = T.reinterpret(_vector_type(element, lanes), vector)
    return T.call_llvm_pure_intrin(_vector_type(result, lanes), name, bits)


def float_bits(vector: Expr, lanes: int) -> Expr:
    """The bits of a float32 vector as int32."""
    return T.reinterpret(_vector_type("int32", lanes), vector)


def from_float_bits(vector: Expr, lanes: int) -> Expr:
    """The inverse of `float_bits`."""
    return T.reinterpret(_vector_type("float32", lanes), vector)


def _vector_type(element: str, lanes: int) -> str:
    return f"{element}x{lanes}" if lanes > 1 else element


def load_strided(buffer: Buffer, start: Expr, stride: int, lanes: int) -> Expr:
    """Every `stride`-th element of a flat buffer from `start`: [start, start + stride, ...], `lanes` of them."""
    if lanes == 1:
        return buffer[start]
    if stride != 2:
        return buffer[T.Ramp(start, stride, lanes)]
    # Two whole vectors and a shuffle; a strided load would become one scalar load per lane. The second vector ends
    # with the last element that is wanted, so nothing behind it is read.
    low = T.Bind(buffer[ramp(start, lanes)])
    high = T.Bind(buffer[ramp(start + (lanes - 1), lanes)])
    half = lanes // 2
    indices = [2 * i if i < half else 2 * i - (lanes - 1) + lanes for i in range(lanes)]
    return T.Shuffle([low, high], indices)


def prefetch(buffer: Buffer, index: Expr) -> None:
    """Emits a prefetch of an element's cache line into the second-level cache; a hint, which never faults."""
    read, second_level, data = T.int32(0), T.int32(2), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(buffer[index]), read, second_level, data))


def shuffle(vectors: list[Expr], lanes: Iterable[int]) -> Expr:
    """A vector of some lanes of others, which count on from one to the next."""
    return T.Shuffle(vectors, list(lanes))


def deinterleave(vectors: list[Expr], lanes: int) -> list[Expr]:
    """The inverse of `interleave`: of elements [a0, b0, a1, b1, ...], in several vectors, [a0, a1, ...], [b0, ...]."""
    if lanes == 1 or len(vectors) == 1:
        return vectors
    return [shuffle(vectors, range(q, len(vectors) * lanes, len(vectors))) for q in range(len(vectors))]


def interleave(vectors: list[Expr], lanes: int) -> Expr:
    """One vector of the elements of several vectors of `lanes`, in turn: [a0, b0, a1, b1, ...]."""
    if len(vectors) == 1:
        return vectors[0]
    return shuffle(vectors, (q * lanes + i for i in range(lanes) for q in range(len(vectors))))
