"""What users give as an input, as an array of the type that the model takes; numbers are kept or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BECOMES = {"b": "biuf", "i": "iuf", "u": "iuf", "f": "f"}
"""NumPy's kinds of types, and those that they are converted to."""


def converted(value: Any, dtype: str) -> NDArray[Any]:
    """An array, a tensor of PyTorch, a number or nested lists, in another type.

    Booleans become numbers, integers other integers or floats that hold them exactly, floats other floats, rounded.

    Raises
    ------
    ValueError: it is no array of numbers, is of a kind that is not converted, or has a number that does not fit.
    """
    array, wanted = _array(value), np.dtype(dtype)
    if array.dtype == wanted:
        return array
    if wanted.kind not in _BECOMES[array.dtype.kind]:
        raise ValueError(f"{array.dtype} is not converted to {dtype}")
    with np.errstate(over="ignore"):
        result = array.astype(wanted)
    if array.dtype.kind == "f":
        lost = np.isinf(result) & np.isfinite(array)
    elif wanted.kind == "f":
        exact = array.astype(np.float64)
        lost = (result != exact) | (np.abs(exact) >= 2.0**53)
    else:
        lost = result != array
    if lost.any():
        raise ValueError(f"{array[lost].flat[0]} does not fit {dtype}")
    return result


def _array(value: Any) -> NDArray[Any]:
    """Raises ValueError when it is no array of numbers."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # NumPy has no bfloat16.
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value.resolve_conj().resolve_neg()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{array.dtype} is no type of numbers")
    return array
