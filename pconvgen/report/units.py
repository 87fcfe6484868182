"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """0.25 as 25.0 %."""
    return f"{100 * share:.1f} %"


def millions(count: float) -> str:
    """1_234_567 as 1.23 M: three digits, or the whole number of millions."""
    return f"{_digits(count / 1e6)} M"


def kib(size: int) -> str:
    """2048 bytes as 2.0 KiB."""
    return f"{size / 1024:.1f} KiB"


def byte_size(size: int) -> str:
    """2048 bytes as 2.0 KiB, five million as 4.8 MiB."""
    return kib(size) if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"


def milliseconds(value: float) -> str:
    """0.0123, 1.23, 123: three digits, or the whole number."""
    return _digits(value)


def dimensions(shape: Sequence[int]) -> str:
    """[16, 3, 3, 3] as 16x3x3x3."""
    return "x".join(str(size) for size in shape) or "-"


def _digits(value: float) -> str:
    if value >= 1000 or value == 0:
        return f"{value:.0f}"
    # g writes numbers under 0.0001 as 1.6e-05, which nobody can compare with its neighbours.
    return f"{value:#.3g}".rstrip(".") if value >= 1e-3 else f"{value:.6f}".rstrip("0").rstrip(".")
