"""What this version promises of instructions of whole networks, and whether a count kept it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.arm.networks.results import Row
from benchmarks.networks.results import OURS
from benchmarks.promises import Verdict


@dataclass(frozen=True)
class Promise:
    """A pruned network takes at most this share of the best dense engine's instructions, in the same format."""

    network: str
    weights: str
    share: float
    format: str = "float32"


PROMISES = tuple(
    Promise(*promised, format)
    for format in ("float32", "float16")
    for promised in (("vgg16_bn", "simd_block 8x", 0.55), ("resnet50", "simd_block 4x", 0.6))
)


def judge(promise: Promise, rows: Sequence[Row], peers: Sequence[str]) -> Verdict:
    """Judges by the best dense engine; all `peers` have to be there, the engines of its format."""
    text = (
        f"{promise.network}, {promise.weights}, {promise.format}: <= {promise.share:g} of the best dense engine's"
        " instructions"
    )
    found = [row for row in rows if (row.network, row.format) == (promise.network, promise.format)]
    ours = next((row for row in found if row.engine == OURS and row.weights == promise.weights), None)
    best = min((row for row in found if row.engine != OURS), key=lambda row: row.instructions, default=None)
    if ours is None or best is None:
        return Verdict(text, "", "not measured")
    share = ours.instructions / best.instructions
    absent = [peer for peer in peers if all(row.engine != peer for row in found)]
    word = "MISSED" if share > promise.share else f"not judged without {', '.join(absent)}" if absent else "ok"
    return Verdict(text, f"{share:.3f} of {best.engine}", word)
