"""Number formats, and what everything else must know about one."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """A number format; its value is the name that NumPy and TVM have for it.

    Attributes
    ----------
    bits, bytes: of an element.
    largest: finite number.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    bits: int
    bytes: int
    largest: float


# Attributes, not properties: costs ask for them some ten thousand times for a network.
for _dtype, _bits, _largest in (
    (DType.FLOAT32, 32, 3.4028234663852886e38),
    (DType.FLOAT16, 16, 65504.0),
):
    _dtype.bits, _dtype.bytes, _dtype.largest = _bits, _bits // 8, _largest
