"""How a network is measured in all engines.

Each engine is a process that has loaded its network, on one thread. A round lets every one of them run in turn, the FMA
peak of the core first; the time of an engine in a round is the median of its inferences. What a neighbour takes makes a
round slower and never faster, so of every engine the best round counts. The median over the rounds is kept beside it.
An engine that never had its core for itself gets as many rounds again.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.engines.engine import DEEPSPARSE, LIBRARY, TVM_TUNED, Engine
from benchmarks.engines.running import Running, running
from benchmarks.measuring import Reading
from benchmarks.models.cases import Case, Variant
from benchmarks.models.exported import Exported, export
from benchmarks.networks.layer_times import profile
from benchmarks.networks.libraries import compiled, weights_of
from benchmarks.networks.results import DENSE, OURS, Library, NetworkResult, Profile, Timing
from benchmarks.peak.meters import export_peak
from pconvgen.errors import PconvgenError
from pconvgen.manifest import read_manifest
from pconvgen.targets.presets import get_target

READ_S, READ_REPEATS = 0.2, 3
"""Of an engine in a round."""

SLOW = 6
"""An engine that takes so many times as long as the fastest in the first round is measured in no other."""

ONE_THREAD = 1.1
"""Processor time over wall time of an engine on one thread is at most this."""

PROFILE_ROUNDS, PROFILE_REPEATS = 5, 5
SCALED = 2
"""Threads beside one."""

TOLERANCE = 1e-2
"""Largest error relative to the largest output: Winograd convolutions of large tiles lose three digits."""

Say = Callable[[str], None]


@dataclass(eq=False)
class _Subject:
    """An engine with its network, and its rounds so far."""

    engine: str
    weights: str
    threads: int
    process: Running
    error: float
    readings: list[Reading] = field(default_factory=list)

    def timing(self) -> Timing:
        """What its rounds say."""
        best = min(self.readings, key=lambda reading: reading.ms)
        typical = statistics.median(reading.ms for reading in self.readings)
        return Timing(self.engine, self.weights, self.threads, best.ms, typical, best.core, self.error)

    def slow(self, fastest: float) -> bool:
        """Whether it is not worth another round, given the milliseconds of the fastest engine."""
        return self.engine != OURS and bool(self.readings) and self.readings[0].ms > SLOW * fastest

    def cores(self) -> float:
        """How many cores computed at most."""
        return max(reading.core for reading in self.readings)


def measure(case: Case, engines: Sequence[Engine], rounds: int, say: Say) -> NetworkResult:
    """Converts, compiles, checks and measures one network.

    Parameters
    ----------
    case: the network.
    engines: the others; DeepSparse also gets the networks with as many non-zeros as the pruned ones.
    rounds: how often all are measured.
    say: is told what is being done.

    Raises PconvgenError when pconvgen's own library fails or computes something else than PyTorch.
    """
    subjects: list[_Subject] = []
    libraries: list[Library] = []
    missing: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pconvgen-network-")))
        say("exporting")
        dense = export(case.build(), case.image(), _file(folder, DENSE))
        todo = [(engine, DENSE, dense) for engine in engines if engine is not TVM_TUNED or case.tuned]
        if DEEPSPARSE in engines:
            # Variants of one density have about as many non-zeros; each gets its own, layer by layer.
            for variant in case.variants:
                model = export(case.unstructured(variant), case.image(), _file(folder, variant.name))
                todo.append((DEEPSPARSE, f"unstructured {variant.name}", model))
        for engine, weights, model in todo:
            say(f"{engine.name}: {weights}")
            try:
                subjects.append(_peer(stack, engine, weights, model))
            except PconvgenError as error:
                missing.append(f"{engine.name}, {weights}: {error}")
        for variant in (None, *case.variants):
            say(f"compiling {weights_of(variant)}")
            libraries.append(compiled(case, variant, _library(folder, weights_of(variant))))
            expected = dense if variant is None else _reference(case, variant)
            for threads in (1, SCALED) if case.scaling else (1,):
                subjects.append(_ours(stack, weights_of(variant), folder, expected, threads))
        peaks = _peaks(stack, folder, (1, SCALED) if case.scaling else (1,))
        best_peaks = _rounds(subjects, peaks, rounds, say)
        greedy = [subject for subject in subjects if subject.threads == 1 and subject.cores() > ONE_THREAD]
        missing += [f"{s.engine}, {s.weights}: it computed on {s.cores():.1f} cores, not on one" for s in greedy]
        say("layer by layer")
        profiles = _profiles(case, subjects, folder)
    return NetworkResult(
        network=case.network,
        title=case.title,
        size=case.size,
        date=date.today().isoformat(),
        cpu=get_target("host").cpu,
        versions={
            "pconvgen": version("pconvgen"),
            "apache-tvm": version("apache-tvm"),
            "torch": version("torch"),
            "Python": platform.python_version(),
        }
        | {engine.name: engine.version for engine in engines},
        peak_gflops=best_peaks,
        timings=tuple(subject.timing() for subject in subjects if subject not in greedy),
        libraries=tuple(libraries),
        profiles=profiles,
        missing=tuple(missing),
    )


def _file(folder: Path, name: str) -> Path:
    """The ONNX file, in a folder of its own for what converters write beside it."""
    inside = folder / name.replace(" ", "-")
    inside.mkdir()
    return inside / f"{inside.name}.onnx"


def _library(folder: Path, weights: str) -> Path:
    return folder / f"{weights.replace(' ', '-')}.so"


def _peer(stack: ExitStack, engine: Engine, weights: str, model: Exported) -> _Subject:
    """An engine that has loaded a network and computes what PyTorch computes; one that does not is ended again."""
    with ExitStack() as own:
        process = own.enter_context(running(engine))
        process.convert(model.path)
        error = _checked(process, model.path, model)
        stack.push(own.pop_all())
    return _Subject(engine.name, weights, 1, process, error)


def _ours(stack: ExitStack, weights: str, folder: Path, expected: Exported, threads: int) -> _Subject:
    process = stack.enter_context(running(LIBRARY, threads))
    return _Subject(OURS, weights, threads, process, _checked(process, _library(folder, weights), expected))


def _checked(process: Running, path: Path, model: Exported) -> float:
    """Loads a network and returns its error. Raises PconvgenError when that is too large."""
    error = model.error(process.load(path, model.inputs, list(model.expected)))
    if not error < TOLERANCE:  # also when it is not a number
        name = process.engine.name
        raise PconvgenError(f"{name} computes another network", found=f"error {error:.1e}", expected=TOLERANCE)
    return error


def _reference(case: Case, variant: Variant) -> Exported:
    """What a pruned network computes; nobody reads its file."""
    with tempfile.TemporaryDirectory(prefix="pconvgen-reference-") as folder:
        return export(case.pruned(variant), case.image(), Path(folder) / "model.onnx")


@dataclass(frozen=True)
class _Peak:
    threads: int
    flops: int
    process: Running


def _peaks(stack: ExitStack, folder: Path, threads: Sequence[int]) -> list[_Peak]:
    """The FMA peak for each number of threads, as libraries that run like the networks'."""
    found = []
    for number in threads:
        path = folder / f"peak{number}.so"
        kernel = export_peak(get_target("host"), number, path)
        process = stack.enter_context(running(LIBRARY, number))
        process.load(path, {"seed": np.full(kernel.lanes, 0.5, np.float32)}, ["output"])
        found.append(_Peak(number, kernel.flops, process))
    return found


def _rounds(subjects: Sequence[_Subject], peaks: Sequence[_Peak], rounds: int, say: Say) -> dict[int, float]:
    """Measures all in turn; returns the best FMA peak by number of threads."""
    best = dict.fromkeys((peak.threads for peak in peaks), 0.0)
    for number in range(2 * rounds):
        fastest = min((reading.ms for subject in subjects for reading in subject.readings), default=float("inf"))
        again = number >= rounds
        todo = [s for s in subjects if not s.slow(fastest) and (not again or s.timing().noisy)]
        if not todo:
            break
        say(f"round {number + 1}" + f", of {len(todo)} that were disturbed" * again)
        for peak in peaks:
            ms = peak.process.read(READ_S / 2, READ_REPEATS).ms
            best[peak.threads] = max(best[peak.threads], 1e-6 * peak.flops / ms)
        for subject in todo:
            subject.readings.append(subject.process.read(READ_S, READ_REPEATS))
    return best


def _profiles(case: Case, subjects: Sequence[_Subject], folder: Path) -> tuple[Profile, ...]:
    """Layers of every pruned network beside those of the dense one, in turns, the best of all."""
    ours = {subject.weights: subject for subject in subjects if subject.engine == OURS and subject.threads == 1}
    calls: dict[str, list[dict]] = {}
    for _ in range(PROFILE_ROUNDS):
        for weights, subject in ours.items():
            found = subject.process.profile(PROFILE_REPEATS)
            for call, earlier in zip(found, calls.get(weights, found), strict=True):
                call["ms"] = min(call["ms"], earlier["ms"])
            calls[weights] = found
    decisions = {weights: read_manifest(_library(folder, weights)).decisions for weights in ours}
    return tuple(
        profile(v.name, calls[v.name], decisions[v.name], calls[DENSE], decisions[DENSE]) for v in case.variants
    )
