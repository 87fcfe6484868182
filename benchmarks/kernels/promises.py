"""What this version promises of its kernels, and whether a run kept it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.kernels.row import Row
from benchmarks.layers import Layer
from benchmarks.promises import Verdict


@dataclass(frozen=True)
class Promise:
    """Shares of the FMA peak, kernel alone, over all layers of a group.

    Attributes
    ----------
    structure, group, density: which rows are meant.
    mean: the geometric mean is at least this.
    floor: no layer is below this.
    """

    structure: str
    group: str
    density: float
    mean: float
    floor: float


@dataclass(frozen=True)
class PeerPromise:
    """How many times as fast as the peer, packing included: the geometric mean over all 3x3 layers at DENSITY."""

    structure: str
    ratio: float


DENSITY = 0.125

PROMISES = (
    Promise("simd_block(4)", "3x3", DENSITY, 0.92, 0.80),
    Promise("simd_block(8)", "3x3", DENSITY, 0.92, 0.80),
    Promise("simd_block(16)", "3x3", DENSITY, 0.92, 0.80),
    Promise("block_punched(8x4)", "3x3", DENSITY, 0.92, 0.80),
    Promise("pattern", "3x3", DENSITY, 0.72, 0.55),
    Promise("unstructured", "3x3", DENSITY, 0.52, 0.40),
    Promise("dense", "3x3", 1.0, 0.92, 0.85),
    Promise("simd_block(4)", "1x1", 0.25, 0.85, 0.70),
)

PEER_PROMISES = (
    PeerPromise("simd_block(4)", 1.5),
    PeerPromise("simd_block(8)", 1.5),
    PeerPromise("simd_block(16)", 1.5),
    PeerPromise("pattern", 1.25),
    PeerPromise("unstructured", 0.8),
)


def geometric_mean(values: Sequence[float]) -> float:
    """Of one or more positive numbers."""
    return float(np.exp(np.log(values).mean()))


def judge(promise: Promise, rows: Sequence[Row], layers: Sequence[Layer], peak: float) -> Verdict:
    """Judges by the rows of all `layers` of the group; a promise is not judged by some of them."""
    key = (promise.group, promise.structure, promise.density)
    meant = [row for row in rows if (row.group, row.structure, row.asked_density) == key]
    shares = {row.layer: row.gflops / peak for row in meant}
    text = (
        f"{promise.structure} at {promise.density:.1%}, {promise.group}: "
        f"mean {promise.mean:.2f}, no layer below {promise.floor:.2f}"
    )
    wanted = [layer.name for layer in layers if layer.group == promise.group]
    if not shares:
        return Verdict(text, "", "not measured")
    mean, worst = geometric_mean(list(shares.values())), min(shares, key=shares.__getitem__)
    found = f"mean {mean:.3f}, lowest {shares[worst]:.3f} ({worst})" + "~" * any(row.noisy(peak) for row in meant)
    if len(shares) < len(wanted):
        return Verdict(text, found, f"not judged: {len(shares)} of {len(wanted)} layers")
    return Verdict(text, found, "ok" if mean >= promise.mean and shares[worst] >= promise.floor else "MISSED")


def judge_peer(promise: PeerPromise, ratios: Sequence[float], layers: Sequence[Layer], peer: str) -> Verdict:
    """Judges by the ratios (peer's time / ours) of all 3x3 ones of `layers`."""
    expected = sum(layer.group == "3x3" for layer in layers)
    text = f"{promise.structure} at {DENSITY:.1%}, 3x3, with packing: {promise.ratio:.2f}x {peer}"
    if not ratios:
        return Verdict(text, "", "not measured")
    mean = geometric_mean(ratios)
    found = f"mean {mean:.2f}x, lowest {min(ratios):.2f}x"
    if len(ratios) < expected:
        return Verdict(text, found, f"not judged: {len(ratios)} of {expected} layers")
    return Verdict(text, found, "ok" if mean >= promise.ratio else "MISSED")
