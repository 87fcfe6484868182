"""One measurement of a kernel."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.kernels.kernel import prepare
from benchmarks.layers import Layer, Pruning
from benchmarks.measuring import interleave, is_noisy
from benchmarks.peak.meters import Meter
from pconvgen.values.target import Target


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    group, layer, structure, asked_density: its key.
    density: share of the weights that survive, which blocks and patterns round.
    encoding, schedule: how it is stored and computed.
    kernel_ms, pack_ms: best rounds; 0 where nothing is packed.
    peak_gflops: the FMA peak of its quietest rounds, see `interleave`.
    flops: two for every surviving weight and output pixel.
    nbytes: surviving weights, indices, input and output: what has to be moved at least once.
    """

    group: str
    layer: str
    structure: str
    asked_density: float
    density: float
    encoding: str
    schedule: dict[str, Any]
    kernel_ms: float
    pack_ms: float
    peak_gflops: float
    flops: int
    nbytes: int

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s of the kernel."""
        return 1e-6 * self.flops / self.kernel_ms

    @property
    def packed_gflops(self) -> float:
        """Useful GFLOP/s of packing and kernel together."""
        return 1e-6 * self.flops / (self.kernel_ms + self.pack_ms)

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.nbytes

    def noisy(self, peak: float) -> bool:
        """Whether no round was quiet, given the best peak of the process."""
        return is_noisy(self.peak_gflops, peak)

    def merged(self, other: Row) -> Row:
        """The best of two measurements of the same."""
        return replace(
            self,
            kernel_ms=min(self.kernel_ms, other.kernel_ms),
            pack_ms=min(self.pack_ms, other.pack_ms),
            peak_gflops=max(self.peak_gflops, other.peak_gflops),
        )

    def json(self, peak: float) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        return asdict(self) | {
            "gflops": self.gflops,
            "share": self.gflops / peak,
            "share_with_packing": self.packed_gflops / peak,
            "intensity": self.intensity,
            "noisy": self.noisy(peak),
        }


def measure(layer: Layer, pruning: Pruning, density: float, target: Target, peak: Meter) -> Row:
    """Prunes a random weight, compiles the kernel that its own structure gets, and measures it."""
    kernel = prepare(layer, pruning, density, target)
    best = interleave(kernel.subjects, peak)
    weight, w = kernel.data.weight, layer.workload
    nonzeros = int(np.count_nonzero(weight))
    return Row(
        group=layer.group,
        layer=layer.name,
        structure=pruning.name,
        asked_density=density,
        density=nonzeros / weight.size,
        encoding=kernel.encoding,
        schedule=kernel.schedule,
        kernel_ms=best["kernel"],
        pack_ms=best.get("pack", 0.0),
        peak_gflops=best["peak"],
        flops=2 * nonzeros * w.out_height * w.out_width,
        nbytes=4 * (nonzeros + kernel.data.data.size + kernel.data.expected.size) + kernel.index_bytes,
    )
