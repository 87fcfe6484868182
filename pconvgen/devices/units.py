"""What costs are measured in."""

from __future__ import annotations

SECONDS, INSTRUCTIONS, CYCLES = "seconds", "instructions", "static cycles"
"""Where times mean nothing, under emulation, instructions are counted, and cycles are estimated from their code."""

UNITS = (SECONDS, INSTRUCTIONS, CYCLES)


def cost_text(value: float, unit: str) -> str:
    """A cost as people read it, such as 1.234 ms."""
    return f"{1e3 * value:.3f} ms" if unit == SECONDS else f"{value / 1e6:.3f} M {unit}"
