"""Number formats, and what everything else must know about one."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """A number format; its value is the name that NumPy and TVM have for it."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def bits(self) -> int:
        """Of an element."""
        return _FACTS[self][0]

    @property
    def bytes(self) -> int:
        """Of an element."""
        return self.bits // 8

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return _FACTS[self][1]


_FACTS = {
    DType.FLOAT32: (32, 3.4028234663852886e38),
    DType.FLOAT16: (16, 65504.0),
}
