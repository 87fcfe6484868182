"""Arrays between inaccessible pages, for kernels that must stay inside of their buffers."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_ACCESS = 0  # PROT_NONE, which mmap does not name
_FILL = 0xFF
"""Bytes around an array: a NaN for who reads them as floats."""
ALIGNMENT = 64
"""Kernels assume that buffers start at multiples of this."""


class Guarded:
    """A copy of an array between two inaccessible pages: whoever touches them ends the process.

    `at` says which page it touches. At "start" nothing lies before the array. At "end" nothing lies behind it, but for
    up to 60 bytes when its size is no multiple of the alignment; those are filled, and `intact` tells whether they were
    written. Arrays that are not `writable` lie on pages that cannot be written.
    """

    def __init__(self, array: NDArray[Any], at: Literal["start", "end"], *, writable: bool) -> None:
        page = mmap.PAGESIZE
        size = -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        inner = max(page, -(-size // page) * page)
        memory = mmap.mmap(-1, inner + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._inner = np.frombuffer(memory, np.uint8, inner, page)
        self._inner[:] = _FILL
        first = 0 if at == "start" else inner - size
        self._around = np.ones(inner, np.bool_)
        self._around[first : first + array.nbytes] = False
        self.array = np.frombuffer(memory, array.dtype, array.size, page + first).reshape(array.shape)
        self.array[...] = array
        _protect(start, page, _NO_ACCESS)
        _protect(start + page + inner, page, _NO_ACCESS)
        if not writable:
            _protect(start + page, inner, mmap.PROT_READ)

    @property
    def intact(self) -> bool:
        """Whether nothing was written around the array."""
        return bool((self._inner[self._around] == _FILL).all())


def _protect(address: int, size: int, how: int) -> None:
    if _LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), how):
        raise OSError(ctypes.get_errno(), "mprotect failed")
