"""Kernels that take and make denormal numbers, and the mode of a thread that says what becomes of those."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm

from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.tir import T, prim_func

HOST = llvm_target(get_target("host"))
ROWS, COLUMNS = 8, 6
FACTORS = {"float32": (2.0**-20, 2.0**20), "float16": (2.0**-9, 2.0**9)}
"""A product by the first of them and then by the second one is the number again, or zero."""
OPERANDS = {"float32": (2.0**-145, 2.0**-120, 1.0), "float16": (2.0**-20, 2.0**-12, 1.0)}
"""A denormal number, one that becomes denormal on the way, and one that does not."""
LOOPS = ("serial", "parallel", "serial, then parallel", "parallel in serial")


def kernel(loops: str, element: str = "float32") -> Any:
    """output[r, c] = data[r, c] * small * large, its function's name "kernel"."""
    small, large = (getattr(T, element)(factor) for factor in FACTORS[element])
    with prim_func("kernel") as get:
        data = T.arg("data", T.buffer((ROWS, COLUMNS), element))
        output = T.arg("output", T.buffer((ROWS, COLUMNS), element))

        def multiply(source: Any, target: Any, rows: Any, first: Any = 0) -> None:
            with rows as r, T.serial(0, COLUMNS) as c:
                T.buffer_store(target, T.Bind(source[first + r, c] * small) * large, [first + r, c])

        if loops == "serial":
            multiply(data, output, T.serial(0, ROWS))
        elif loops == "parallel":
            multiply(data, output, T.parallel(0, ROWS))
        elif loops == "serial, then parallel":
            between = T.alloc_buffer((ROWS, COLUMNS), element)
            multiply(data, between, T.serial(0, ROWS))
            multiply(between, output, T.parallel(0, ROWS))
        else:
            with T.serial(0, 2) as half:
                multiply(data, output, T.parallel(0, ROWS // 2), half * (ROWS // 2))
    return get().with_attr("global_symbol", "kernel")


def operands(element: str = "float32") -> np.ndarray:
    """Of both signs, [ROWS, COLUMNS]."""
    numbers = OPERANDS[element]
    return np.resize(np.array([*numbers, *(-number for number in numbers)], element), (ROWS, COLUMNS))


def flushed(element: str = "float32") -> np.ndarray:
    """What the kernels answer where no operation takes or gives a denormal number, [ROWS, COLUMNS]."""
    data = operands(element)
    return np.where(np.abs(data) == 1, data, np.copysign(np.zeros_like(data), data))


def answer(function: Callable[..., Any]) -> np.ndarray:
    """What one of the kernels makes of `operands`."""
    result = tvm.runtime.tensor(np.full_like(operands(), np.nan))
    function(tvm.runtime.tensor(operands()), result)
    return result.numpy()


def build(loops: str, target: tvm.target.Target, element: str = "float32") -> Any:
    """A module with one of the kernels, as pconvgen compiles them."""
    return compile_module(tvm.IRModule({"kernel": kernel(loops, element)}), target)


X86 = platform.machine() in ("x86_64", "AMD64")
FLUSH, TO_ZERO = (1 << 15 | 1 << 6, 3 << 13) if X86 else (1 << 24, 3 << 22)
"""Modes of a thread: denormal numbers are zero; results are rounded towards zero."""
_FLAGS = 0x3F if X86 else 0
_WORD = 7 if X86 else 0
"""Where fenv_t has MXCSR or FPCR, in words of 32 bits: sysdeps/*/fpu/bits/fenv.h of the C library."""


def mode() -> int:
    """This thread's, without the flags of what happened."""
    return int(_environment()[_WORD]) & ~_FLAGS


@contextmanager
def in_mode(bits: int) -> Iterator[None]:
    """This thread computes with these bits of the mode set; what it changed is undone."""
    before, within = _environment(), _environment()
    within[_WORD] |= bits
    _LIBM.fesetenv(within)
    try:
        yield
    finally:
        _LIBM.fesetenv(before)


def _environment() -> Any:
    words = (ctypes.c_uint32 * 16)()
    _LIBM.fegetenv(words)
    return words


_LIBM = ctypes.CDLL("libm.so.6")
