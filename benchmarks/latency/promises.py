"""What this version promises of predictions, and whether an evaluation kept it."""

from __future__ import annotations

from typing import Any

FEW = 500
"""Records that a device has at least for its promised errors, of networks."""


def missed(found: dict[str, Any]) -> list[str]:
    """What is further off than promised."""
    few = found["records"][f"{FEW} records"]
    checks = [
        ("median error of layers", few["error"], 0.08),
        *((f"1 - rank correlation of {name}", 1 - value, 0.1) for name, value in found["ranks"].items()),
        *((f"network {name}", abs(error), 0.15) for name, error in found["networks"].items()),
        *((f"curves of {row['layer']}", row["error"], 0.05) for row in found["curves"]),
        *((f"whatif {row['network']} at {row['density']:g}", abs(row["error"]), 0.10) for row in found["whatif"]),
    ]  # fmt: skip
    return [f"{name}: {value:.1%}, promised {most:.0%}" for name, value, most in checks if value > most]
