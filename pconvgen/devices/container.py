"""A file of tensors that a C++ program reads in a few lines: the emulated device's inputs and outputs.

Little-endian: the number of tensors (u32), then for each its DLPack dtype (u8 code, u8 bits, u16 lanes), its rank
(u32), its extents (i64 each) and its elements.

The program has no library but TVM's: it would have to parse the JSON of safetensors, or .npy's Python dictionaries.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pconvgen.errors import PconvgenError

_COUNT = struct.Struct("<I")
_TENSOR = struct.Struct("<BBHI")

# numpy's kinds of dtype and DLPack's codes for them.
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}


def write_tensors(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Writes C-contiguous arrays.

    Raises
    ------
    PconvgenError: a dtype has no counterpart on the other side.
    """
    with path.open("wb") as file:
        file.write(_COUNT.pack(len(arrays)))
        for array in arrays:
            file.write(_TENSOR.pack(*dlpack_type(array.dtype), 1, array.ndim))
            file.write(struct.pack(f"<{array.ndim}q", *array.shape))
            file.write(array.tobytes())


def dlpack_type(dtype: np.dtype) -> tuple[int, int]:
    """DLPack's code of a type, and its bits.

    Raises
    ------
    PconvgenError: it has none.
    """
    if dtype.kind not in _CODES:
        raise PconvgenError("no such tensors on this device", found=dtype, expected="integers, floats or booleans")
    return _CODES[dtype.kind], 8 * dtype.itemsize


def read_tensors(path: Path) -> list[np.ndarray]:
    """Reads what `write_tensors` or the program of the device wrote.

    Raises
    ------
    PconvgenError: the file is missing, cut short, or has tensors that numpy does not know.
    """
    try:
        data = path.read_bytes()
        (count,) = _COUNT.unpack_from(data)
        offset, arrays = _COUNT.size, []
        for _ in range(count):
            code, bits, _, rank = _TENSOR.unpack_from(data, offset)
            offset += _TENSOR.size
            shape = struct.unpack_from(f"<{rank}q", data, offset)
            offset += 8 * rank
            array = np.frombuffer(data, _dtype(code, bits), int(np.prod(shape, dtype=np.int64)), offset).reshape(shape)
            offset += array.nbytes
            arrays.append(array.copy())
        return arrays
    except (OSError, struct.error, KeyError, TypeError, ValueError) as error:
        raise PconvgenError("the device's outputs are unreadable", file=path, found=error) from error


def _dtype(code: int, bits: int) -> np.dtype:
    return np.dtype(f"<{_KINDS[code]}{bits // 8}")
