"""What this version promises of instructions of 3x3 layers."""

from __future__ import annotations

from collections.abc import Mapping

PROMISED = {
    "simd_block(4)": 20.5e6,
    "pattern(4)": 28e6,
    "pattern(8)": 28e6,
    "simd_block(8), float16": 10.5e6,
    "pattern(4), float16": 14e6,
}
"""Instructions, packing included, mean of the layers. pattern(4) is PCONV's, pattern(8) what suits random weights."""
PROMISED_AS_PEER = {"dense": "onnxruntime"}
"""At most as many as this engine."""


def promises(average: Mapping[str, float]) -> dict[str, float]:
    """The most instructions that each promised name may take; one whose peer was not counted is left out."""
    of_peers = {name: average[peer] for name, peer in PROMISED_AS_PEER.items() if peer in average}
    return PROMISED | of_peers


def missed(average: Mapping[str, float], promised: Mapping[str, float]) -> list[str]:
    """The names that took more, or were not counted."""
    expected = sorted({*PROMISED, *PROMISED_AS_PEER})
    return [name for name in expected if not average.get(name, float("inf")) <= promised.get(name, -float("inf"))]
