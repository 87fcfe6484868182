"""What a run of `make bench-networks` finds out, as values with a stable JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pconvgen.files import write_json

OURS = "pconvgen"
DENSE = "dense"

# Of a noisy measurement: least share of the time in which a thread had its core.
QUIET = 0.97


@dataclass(frozen=True)
class Timing:
    """An engine on a network.

    Attributes
    ----------
    engine: its name; OURS for what pconvgen compiles.
    weights: DENSE, the name of a variant, or "unstructured" before it for another engine with as many non-zeros.
    threads: how many it was given.
    ms: of one inference: the best round's median.
    typical_ms: the median over the rounds of the same.
    core: processor time over wall time of the best round.
    error: of its outputs, relative to the largest.
    """

    engine: str
    weights: str
    threads: int
    ms: float
    typical_ms: float
    core: float
    error: float

    @property
    def noisy(self) -> bool:
        """Whether something else ran on its core even in the best round."""
        return self.threads == 1 and self.core < QUIET


@dataclass(frozen=True)
class Library:
    """What compiling a network took and gave.

    Attributes
    ----------
    weights: DENSE or the name of a variant.
    compile_s, peak_gib: from the model to the library, in a process of its own, PyTorch in it.
    nbytes: size of the library.
    allowed_bytes: surviving weights and their indices, a tenth and a MiB more.
    macs: surviving multiply-accumulates of all convolutions and linear layers.
    """

    weights: str
    compile_s: float
    peak_gib: float
    nbytes: int
    allowed_bytes: int
    macs: float


@dataclass(frozen=True)
class LayerTime:
    """One layer in its network, pruned and compiled dense, each the best of some inferences.

    Attributes
    ----------
    name: the layer.
    kind: see `kind_of` in benchmarks/networks/layer_times.py.
    macs: surviving multiply-accumulates.
    ms, dense_ms: kernel and packing of its input.
    pruned: whether it has zeros at all; others have the same kernel in both.
    """

    name: str
    kind: str
    macs: float
    ms: float
    dense_ms: float
    pruned: bool = True


@dataclass(frozen=True)
class Profile:
    """Where the time of a pruned network goes.

    Attributes
    ----------
    weights: the variant.
    layers: its convolutions and linear layers.
    parts: milliseconds of everything, by kind: those of layers, and the rest.
    """

    weights: str
    layers: tuple[LayerTime, ...]
    parts: dict[str, float]


@dataclass(frozen=True)
class NetworkResult:
    """All of one network; everything in it was measured in the same rounds.

    Attributes
    ----------
    network, title, size: of the case.
    date, cpu, versions: when, where, and of which engines.
    peak_gflops: best FMA peak by number of threads.
    timings, libraries, profiles: what was measured.
    missing: what was not, and why.
    """

    network: str
    title: str
    size: int
    date: str
    cpu: str
    versions: dict[str, str]
    peak_gflops: dict[int, float]
    timings: tuple[Timing, ...]
    libraries: tuple[Library, ...]
    profiles: tuple[Profile, ...]
    missing: tuple[str, ...]

    def timing(self, engine: str, weights: str, threads: int = 1) -> Timing | None:
        """One row; None when it was not measured."""
        key = (engine, weights, threads)
        return next((row for row in self.timings if (row.engine, row.weights, row.threads) == key), None)

    def best_dense(self) -> Timing | None:
        """The fastest other engine on the network that is not pruned."""
        rows = [row for row in self.timings if row.engine != OURS and row.weights == DENSE and row.threads == 1]
        return min(rows, key=lambda row: row.ms, default=None)

    def sparse_peer(self, weights: str) -> Timing | None:
        """Another engine on the network with as many non-zeros."""
        return next((row for row in self.timings if row.weights == f"unstructured {weights}"), None)

    def bound_ms(self, library: Library) -> float:
        """The time of the surviving multiply-accumulates at the FMA peak of one core."""
        return 2e-6 * library.macs / self.peak_gflops[1]


def save(results: Sequence[NetworkResult], path: Path) -> None:
    """Writes all results."""
    write_json(path, [asdict(result) for result in results])


def load(path: Path) -> list[NetworkResult]:
    """The inverse of `save`; nothing when there is no such file."""
    if not path.is_file():
        return []
    return [_result(row) for row in json.loads(path.read_text())]


def _result(row: dict) -> NetworkResult:
    profiles = (
        Profile(item["weights"], tuple(LayerTime(**layer) for layer in item["layers"]), item["parts"])
        for item in row["profiles"]
    )
    return NetworkResult(
        **row
        | {
            "peak_gflops": {int(threads): peak for threads, peak in row["peak_gflops"].items()},
            "timings": tuple(Timing(**item) for item in row["timings"]),
            "libraries": tuple(Library(**item) for item in row["libraries"]),
            "profiles": tuple(profiles),
            "missing": tuple(row["missing"]),
        }
    )


def merged(old: Sequence[NetworkResult], new: Sequence[NetworkResult]) -> list[NetworkResult]:
    """The old results with networks that were measured again replaced, new ones behind them."""
    found = {result.network: result for result in (*old, *new)}
    return list(found.values())
