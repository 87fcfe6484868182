"""Constants beside TVM's serialiser, which copies them three times, into memory that the system finds page by page.

before: a virtual machine's program with every constant
after:  one with a short stand-in for each large constant, which is put back as the file is written

What is written is byte for byte what TVM would write.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm_ffi import structural_map

from pconvgen.tvm_compat.relax import Expr, Module, constant, constant_value
from pconvgen.tvm_compat.rewriting import with_functions

LARGE = 4096
"""Bytes from which a constant is left out: below that there is nothing to gain."""

_STAND_IN = b"stand-in for a constant "
_DIGITS = 8
_PROGRAM = b"relax.VMExecutable"
_LENGTH = struct.Struct("<Q")
_TENSOR = struct.Struct("<QQiiiBBH")
_MAGIC, _CPU = 0xDD5E40F096B4A13F, 1


def without_constants(module: Module) -> tuple[Module, tuple[NDArray[Any], ...]]:
    """A module whose functions have stand-ins for large constants, and these; equal ones are one."""
    arrays: list[NDArray[Any]] = []
    numbers: dict[Hashable, list[int]] = {}

    def number_of(array: NDArray[Any]) -> int:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        same = numbers.setdefault((array.dtype, array.shape, zlib.adler32(flat.data)), [])
        for number in same:
            if np.array_equal(arrays[number].reshape(-1).view(np.uint8), flat):
                return number
        same.append(len(arrays))
        arrays.append(array)
        return same[-1]

    def replaced(node: Expr) -> Expr:
        value = constant_value(node)
        if value is None or value.nbytes < LARGE:
            return node
        return constant(np.frombuffer(_stand_in(number_of(value)), np.uint8))

    functions = {
        variable: structural_map(function, replaced)
        for variable, function in module.functions.items()
        if isinstance(function, relax.Function)
    }
    return with_functions(module, functions), tuple(arrays)


def with_constants(packed: bytes, constants: Sequence[NDArray[Any]]) -> Iterator[bytes | NDArray[np.uint8]]:
    """The pieces, in order, of a packed virtual machine with constants in place of their stand-ins.

    Parameters
    ----------
    packed: its length, modules and the program of one whose constants `without_constants` has left out.
    constants: what that has left out.

    Raises
    ------
    ValueError: a stand-in is not there once, or nothing is of the format of this TVM.
    """
    found = []
    for number, array in enumerate(constants):
        stand_in = np.frombuffer(_stand_in(number), np.uint8)
        before = _tensor_head(stand_in) + stand_in.tobytes()
        if packed.count(before) != 1:
            raise ValueError(f"{packed.count(before)} places for a constant of shape {array.shape}")
        found.append((packed.index(before), len(before), _tensor_head(array), array))
    found.sort(key=lambda each: each[0])
    grown = sum(len(head) + array.nbytes - length for _, length, head, array in found)
    packed, end = _with_lengths(packed, grown), 0
    for start, length, head, array in found:
        yield packed[end:start]
        yield head
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        end = start + length
    yield packed[end:]


def _stand_in(number: int) -> bytes:
    return _STAND_IN + b"%0*d" % (_DIGITS, number)


def _tensor_head(array: NDArray[Any]) -> bytes:
    """What TVM writes before the elements of a tensor."""
    kind = tvm.DataType(str(array.dtype))
    head = _TENSOR.pack(_MAGIC, 0, _CPU, 0, array.ndim, kind.type_code, kind.bits, kind.lanes)
    return head + b"".join(map(_LENGTH.pack, (*array.shape, array.nbytes)))


def _with_lengths(packed: bytes, grown: int) -> bytes:
    """A packed virtual machine with the lengths, of all and of the program, that it has once it has grown."""
    changed = bytearray(packed)
    for place in (0, packed.index(_PROGRAM) + len(_PROGRAM)):
        _LENGTH.pack_into(changed, place, _LENGTH.unpack_from(packed, place)[0] + grown)
    return bytes(changed)
