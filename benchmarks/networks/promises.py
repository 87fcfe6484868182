"""What this version promises of whole networks, and whether a run kept it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.engines.engine import DENSE as ENGINES
from benchmarks.engines.engine import TVM_TUNED
from benchmarks.networks.layer_times import slower_than_dense
from benchmarks.networks.results import DENSE, OURS, Library, NetworkResult, Timing
from benchmarks.promises import Verdict


@dataclass(frozen=True)
class SpeedPromise:
    """Of one pruned network on one thread.

    Attributes
    ----------
    network, weights: which.
    dense: times as fast as the best other engine on the dense network.
    sparse: times as fast as DeepSparse with as many non-zeros.
    bound: at most this many times the surviving multiply-accumulates at the FMA peak; None promises nothing.
    """

    network: str
    weights: str
    dense: float
    sparse: float
    bound: float | None = None


@dataclass(frozen=True)
class CompilePromise:
    """Seconds and GiB that compiling a network takes at most; no memory promised with None."""

    network: str
    seconds: float
    gib: float | None = None


SPEED = (
    SpeedPromise("vgg16_bn", "simd_block 8x", 3.0, 1.8, 1.35),
    SpeedPromise("vgg16_bn", "pattern 8x", 2.4, 1.4),
    SpeedPromise("resnet50", "simd_block 4x", 2.5, 1.8, 1.5),
    SpeedPromise("resnet50", "pattern 4x", 2.5, 1.8, 1.5),
    SpeedPromise("mobilenet_v2", "simd_block 2.5x", 1.6, 1.6),
)
NOT_PRUNED = 0.9
"""Times as fast as the best other engine on any network that is not pruned."""

COMPILE = (CompilePromise("resnet50", 60, 4), CompilePromise("vgg16_bn", 120))

SCALING = 0.9
"""Of the FMA peak's own speed-up on two threads."""


def verdicts(results: Sequence[NetworkResult]) -> list[Verdict]:
    """Every promise, judged by the networks that were measured."""
    found = []
    for result in results:
        found += [judge_speed(promise, result) for promise in SPEED if promise.network == result.network]
        found.append(_faster(result, DENSE, result.best_dense(), NOT_PRUNED, "the best dense engine"))
        found += [_scaling(result, library.weights) for library in result.libraries if 2 in result.peak_gflops]
        found += [_compiling(result, promise) for promise in COMPILE if promise.network == result.network]
        found.append(_sizes(result))
        found.append(_layers(result))
    measured = {result.network for result in results}
    for promise in SPEED:
        if promise.network not in measured:
            found.append(Verdict(f"{promise.network}, {promise.weights}", "", "not measured"))
    return found


def judge_speed(promise: SpeedPromise, result: NetworkResult) -> Verdict:
    """Judges a pruned network: against dense, against sparse, against the bound."""
    parts = [
        _faster(result, promise.weights, result.best_dense(), promise.dense, "the best dense engine"),
        _faster(result, promise.weights, result.sparse_peer(promise.weights), promise.sparse, "DeepSparse, pruned"),
    ]
    library = next((row for row in result.libraries if row.weights == promise.weights), None)
    if promise.bound is not None:
        parts.append(_near_bound(result, library, promise.bound))
    words = [part.word for part in parts]
    word = "MISSED" if "MISSED" in words else next((word for word in words if word != "ok"), "ok")
    text = f"{result.title}, {promise.weights}: " + ", ".join(part.text for part in parts)
    return Verdict(text, ", ".join(part.found for part in parts), word)


def _faster(result: NetworkResult, weights: str, peer: Timing | None, ratio: float, name: str) -> Verdict:
    text = f"{ratio:g}x {name}"
    if weights == DENSE:
        text = f"{result.title}, not pruned: {text}"
    ours = result.timing(OURS, weights)
    if ours is None or peer is None:
        return Verdict(text, "", "not measured")
    reached = peer.ms / ours.ms
    found = f"{reached:.2f}x {peer.engine}{'~' * (ours.noisy or peer.noisy)}"
    if reached < ratio:
        return Verdict(text, found, "MISSED")
    absent = _absent(result) if peer.weights == DENSE else []
    return Verdict(text, found, f"not judged without {', '.join(absent)}" if absent else "ok")


def _absent(result: NetworkResult) -> list[str]:
    """Engines whose dense time is not there; a tuned TVM is an extra of some networks."""
    return [e.name for e in ENGINES if e is not TVM_TUNED and result.timing(e.name, DENSE) is None]


def _near_bound(result: NetworkResult, library: Library | None, limit: float) -> Verdict:
    text = f"<= {limit:g} of the FMA bound"
    ours = result.timing(OURS, library.weights) if library else None
    if library is None or ours is None:
        return Verdict(text, "", "not measured")
    reached = ours.ms / result.bound_ms(library)
    return Verdict(text, f"{reached:.2f} of the bound{'~' * ours.noisy}", "MISSED" if reached > limit else "ok")


def _scaling(result: NetworkResult, weights: str) -> Verdict:
    text = f"{result.title}, {weights}: {SCALING:g} of the FMA peak's speed-up on two threads"
    one, two = (result.timing(OURS, weights, threads) for threads in (1, 2))
    if one is None or two is None:
        return Verdict(text, "", "not measured")
    ours, peak = one.ms / two.ms, result.peak_gflops[2] / result.peak_gflops[1]
    return Verdict(text, f"{ours:.2f}x, the peak {peak:.2f}x", "MISSED" if ours < SCALING * peak else "ok")


def _compiling(result: NetworkResult, promise: CompilePromise) -> Verdict:
    gib = promise.gib if promise.gib is not None else float("inf")
    text = f"{result.title}: compiled in {promise.seconds:g} s" + (f" and {gib:g} GiB" if promise.gib else "")
    seconds, memory = (max(getattr(row, key) for row in result.libraries) for key in ("compile_s", "peak_gib"))
    word = "ok" if seconds <= promise.seconds and memory <= gib else "MISSED"
    return Verdict(text, f"{seconds:.0f} s, {memory:.1f} GiB", word)


def _sizes(result: NetworkResult) -> Verdict:
    text = f"{result.title}: libraries of their weights and indices, a tenth and a MiB more"
    worst = max(result.libraries, key=lambda row: row.nbytes / row.allowed_bytes)
    found = f"{worst.nbytes / 1e6:.1f} MB of {worst.allowed_bytes / 1e6:.1f} ({worst.weights})"
    return Verdict(text, found, "MISSED" if worst.nbytes > worst.allowed_bytes else "ok")


def _layers(result: NetworkResult) -> Verdict:
    text = f"{result.title}: no layer slower than compiled dense"
    slower = [
        f"{layer.name} ({profile.weights}) {layer.ms:.3f} against {layer.dense_ms:.3f} ms"
        for profile in result.profiles
        for layer in slower_than_dense(profile)
    ]
    if not all(profile.layers for profile in result.profiles):
        return Verdict(text, "", "not measured")
    return Verdict(text, "; ".join(slower), "MISSED" if slower else "ok")
