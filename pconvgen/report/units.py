"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """0.25 as 25.0 %."""
    return f"{100 * share:.1f} %"


def millions(count: float) -> str:
    """1_234_567 as 1.23 M."""
    value = count / 1e6
    return f"{value:.{0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 3}f} M"


def kib(size: int) -> str:
    """2048 bytes as 2.0 KiB."""
    return f"{size / 1024:.1f} KiB"


def milliseconds(value: float) -> str:
    """Three significant digits: 0.0123, 1.23, 123."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def dimensions(shape: Sequence[int]) -> str:
    """[16, 3, 3, 3] as 16x3x3x3."""
    return "x".join(str(size) for size in shape) or "-"
