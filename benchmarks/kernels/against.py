"""Our kernels and a peer's on the same layers, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.kernels.deepsparse import Peer
from benchmarks.kernels.kernel import prepare
from benchmarks.kernels.promises import DENSITY
from benchmarks.layer_data import random_data
from benchmarks.layers import Layer, Pruning
from benchmarks.measuring import Subject, interleave
from benchmarks.peak.meters import Meter
from pconvgen.values.target import Target


@dataclass(frozen=True)
class Comparison:
    """One layer at DENSITY.

    Attributes
    ----------
    layer: its name.
    peer_ms: the peer's best round.
    peak_gflops: the FMA peak of the quietest rounds, see `interleave`.
    ours_ms: of each structure, best rounds of kernel and packing, added.
    """

    layer: str
    peer_ms: float
    peak_gflops: float
    ours_ms: dict[str, float]

    def ratio(self, structure: str) -> float:
        """How many times as fast as the peer."""
        return self.peer_ms / self.ours_ms[structure]


def ratios(found: Sequence[Comparison], structure: str) -> list[float]:
    """How many times as fast `structure` is on each layer that it was measured on."""
    return [row.ratio(structure) for row in found if structure in row.ours_ms]


def compare(layer: Layer, prunings: Sequence[Pruning], peer: Peer, target: Target, peak: Meter) -> Comparison:
    """Measures the peer and one kernel of each structure in the same rounds.

    The peer gets unstructured weights: the same that our unstructured kernel gets, and as many as the others have.

    Raises
    ------
    PconvgenError: the peer fails.
    """
    peer.load(layer.workload, random_data(layer.workload, Pruning("unstructured", "unstructured"), DENSITY))
    subjects: dict[str, Subject] = {"peer": peer.read}
    for pruning in prunings:
        kernel = prepare(layer, pruning, DENSITY, target)
        subjects |= {f"{pruning.name} {part}": read for part, read in kernel.subjects.items()}
    best = interleave(subjects, peak)
    ours = {p.name: best[f"{p.name} kernel"] + best.get(f"{p.name} pack", 0.0) for p in prunings}
    return Comparison(layer.name, best["peer"], best["peak"], ours)
