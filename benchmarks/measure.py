"""How a kernel is measured on a machine with noisy neighbours.

One process, one thread. A measurement consists of rounds, and every round times each subject for some milliseconds:
the FMA peak of the core first, then the kernel, then the packing of its input. What a neighbour takes makes a round
slower and never faster, so of every subject the best round counts: the median of three repeats in it. A round is
quiet for a subject when the peak in it was close to the best one of this process and nothing else ran on the core
meanwhile. Rounds go on until enough quiet ones brought nothing better, or the time is up.

    share of the peak = best rate of the kernel / best peak of the whole run, before or after

so a peak that a neighbour halved never flatters a kernel. A row without a quiet round is noisy: it is measured again at
the end, and printed with a mark if that did not help.

Every layer has an input and a weight of its own, and repeats read the same arrays. Caches are hot: an input lies where
the layer before it would have left it, in the second cache when it fits. Weights are hot too if they fit beside it,
which those of a whole network would not be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import tvm
from numpy.typing import NDArray

from benchmarks.layers import Layer, Pruning
from benchmarks.peak import Meter
from pconvgen.planning.search import rank
from pconvgen.sparsity import STRUCTURES, encode, project
from pconvgen.templates.choice import Choice
from pconvgen.templates.family import DIRECT, instantiate
from pconvgen.templates.movement.pack import input_pack
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

QUIET = 0.97
"""Of a quiet round: least share of the best peak, and least share of the time in which a subject had its core."""

QUIET_ROUNDS = 10
BETTER = 0.99
"""A time below this share of the best one so far is news; neighbours that fill caches do not show in the peak."""

LIMIT_S = 0.75
"""For each subject; a row does not wait longer for quiet."""

REPEATS = 3
REPEAT_MS = 1.0
TOLERANCE = 1e-4
"""Largest error, relative to the largest output, of what is worth being timed."""


@dataclass(frozen=True)
class Reading:
    """One short measurement.

    Attributes
    ----------
    ms: milliseconds of one call.
    core: share of the time in which it had its core, as the operating system knows it.
    """

    ms: float
    core: float


Subject = Callable[[], Reading]


@dataclass(frozen=True)
class Data:
    """Weight, input, bias and what the layer makes of them; float32, NCHW."""

    weight: NDArray[np.float32]
    data: NDArray[np.float32]
    bias: NDArray[np.float32]
    expected: NDArray[np.float32]

    def check(self, found: NDArray[np.float32], what: str) -> None:
        """Raises ValueError when `found` is not the layer's output."""
        error = float(np.abs(found - self.expected).max() / np.abs(self.expected).max())
        if not error < TOLERANCE:  # also when it is NaN
            raise ValueError(f"{what} computes something else: relative error {error:.1e}")


@dataclass(frozen=True)
class Kernel:
    """One layer, compiled and ready to be timed.

    Attributes
    ----------
    data: what it computes.
    encoding: how its weight is stored.
    schedule: its schedule's values.
    index_bytes: bytes of its indices.
    subjects: what is timed: "kernel", and "pack" if its input is packed.
    """

    data: Data
    encoding: str
    schedule: dict[str, Any]
    index_bytes: int
    subjects: dict[str, Subject]


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


def is_noisy(highest: float, peak: float) -> bool:
    """Whether rounds whose best peak is `highest` were all disturbed, given the best peak of the process."""
    return highest < QUIET * peak


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


def prepare(layer: Layer, pruning: Pruning, density: float, target: Target) -> Kernel:
    """Compiles one layer.

    Of all the ways to store a weight, those of the structure that it was pruned to compete, as they do in the compiler.

    Raises ValueError when the kernel's output is not PyTorch's.
    """
    w = layer.workload
    data = random_data(w, pruning, density)
    found = STRUCTURES[pruning.structure].detect(data.weight, w.groups)
    # Kernels are measured by the share of the peak that surviving weights have: Winograd's would have more than all.
    choice = rank(w, found, target.core, families=DIRECT)[0]
    return build(w, data, choice, target, f"{pruning.name} at {density:g} on {layer.group} {layer.name}")


def build(w: ConvWorkload, data: Data, choice: Choice, target: Target, what: str) -> Kernel:
    """Compiles a layer as `choice` says.

    Raises ValueError, with `what` was compiled, when the kernel's output is not PyTorch's.
    """
    encoding = encode(data.weight, choice.candidate, w.groups, choice.max_group)
    instance, pack = instantiate(w, encoding, choice.schedule, target.core.isa, choice.places), None
    if choice.places is not None:
        pack = input_pack(w.batch, choice.places.source, target.core.lanes(DType.FLOAT32))
    functions = {"kernel": instance.kernel.build()} | ({"pack": pack.build()} if pack else {})
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    library = compile_module(module, llvm_target(target))

    source, arguments = tvm.runtime.tensor(data.data), {}
    if pack:
        packed = tvm.runtime.tensor(np.zeros((w.batch, pack.target.size), np.float32))
        arguments["pack"] = (source, packed)
        library["pack"](source, packed)
        source = packed
    out = tvm.runtime.tensor(np.full(data.expected.shape, np.nan, np.float32))
    constants = map(tvm.runtime.tensor, map(np.ascontiguousarray, instance.constants))
    arguments["kernel"] = (source, *constants, tvm.runtime.tensor(data.bias), out)
    library["kernel"](*arguments["kernel"])
    data.check(out.numpy(), what)
    return Kernel(
        data=data,
        encoding=str(choice.candidate),
        schedule=asdict(choice.schedule) | ({"source": str(choice.places.source)} if choice.places else {}),
        index_bytes=sum(array.nbytes for array in instance.constants if array.dtype.kind == "i"),
        subjects={name: _timer(library, name, arguments[name]) for name in ("kernel", "pack") if name in arguments},
    )


def random_data(w: ConvWorkload, pruning: Pruning, density: float) -> Data:
    """A layer of random numbers, pruned, with its output as PyTorch computes it."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(w.weight_shape).astype(np.float32)
    if pruning.structure != "dense":
        weight = project(pruning.structure, weight, density, groups=w.groups, **pruning.params)
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(np.float32)
    bias = rng.standard_normal(w.out_channels).astype(np.float32)
    tensors = map(torch.from_numpy, (data, weight, bias))
    out = torch.nn.functional.conv2d(*tensors, w.stride, w.padding[:2], w.dilation, w.groups).relu()
    return Data(weight, data, bias, out.numpy())


def interleave(subjects: Mapping[str, Subject], peak: Meter) -> dict[str, float]:
    """Rounds of the peak and all subjects in turn.

    Returns the best milliseconds of every subject and, as "peak", GFLOP/s: every subject had its core in a round in
    which the peak was at least that; 0 when some subject never had it.
    """
    best = {name: _Best() for name in subjects}
    deadline = time.monotonic() + LIMIT_S * len(subjects)
    while any(subject.quiet < QUIET_ROUNDS for subject in best.values()) and time.monotonic() < deadline:
        rate = peak()
        for name, read in subjects.items():
            best[name].add(read(), rate, peak.best)
    return {name: subject.ms for name, subject in best.items()} | {"peak": min(b.peak for b in best.values())}


@dataclass
class _Best:
    """What the rounds so far say of one subject.

    Attributes
    ----------
    ms: the best round.
    peak: GFLOP/s, the best FMA peak of the rounds in which it had its core.
    quiet: quiet rounds since it last became better.
    """

    ms: float = float("inf")
    peak: float = 0.0
    quiet: int = 0

    def add(self, reading: Reading, rate: float, best_rate: float) -> None:
        """One more round, whose peak was `rate`."""
        if reading.core >= QUIET:
            self.peak = max(self.peak, rate)
            self.quiet += not is_noisy(rate, best_rate)
        if reading.ms < BETTER * self.ms:
            self.quiet = 0
        self.ms = min(self.ms, reading.ms)


def _timer(library: Any, name: str, args: tuple[Any, ...]) -> Subject:
    """Reads the median of a few repeats of about a millisecond each."""
    first = min(library.mod.time_evaluator(name, tvm.cpu(), number=1, repeat=REPEATS)(*args).results)
    number = max(1, round(1e-3 * REPEAT_MS / first))
    evaluate = library.mod.time_evaluator(name, tvm.cpu(), number=number, repeat=REPEATS)

    def read() -> Reading:
        wall, core = time.perf_counter(), time.process_time()
        ms = 1e3 * float(np.median(evaluate(*args).results))
        return Reading(ms, (time.process_time() - core) / (time.perf_counter() - wall))

    return read
