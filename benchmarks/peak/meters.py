"""What the core can do at most: FMAs in registers, and bytes read from its L2 cache and from memory.

All meters run on one thread in the process that measures the kernels; a reading takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from pconvgen.targets.linker import library_linker
from pconvgen.tvm_compat.building import build, export_library
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.tir import T, broadcast, prim_func, ramp
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target

ACCUMULATORS = 12
"""Independent sums: enough to hide the latency of an instruction, few enough for 16 registers."""

ROUNDS = 300_000
READINGS = 5
MEMORY_BYTES = 256 << 20
"""More than any cache holds."""


@dataclass(frozen=True)
class Roofs:
    """What the core can do at most: GFLOP/s of FMAs, GB/s read from the L2 cache and from memory."""

    fma_gflops: float
    l2_gbs: float
    memory_gbs: float


@dataclass(frozen=True)
class PeakKernel:
    """Independent FMAs on whole vectors in registers.

    Attributes
    ----------
    lanes: of a vector.
    threads: how many compute, each as much as one alone.
    """

    lanes: int
    threads: int = 1

    @property
    def flops(self) -> int:
        """Of one call."""
        return 2 * self.lanes * ACCUMULATORS * ROUNDS * self.threads

    def build(self) -> PrimFunc:
        """peak(seed [lanes], out [threads x ACCUMULATORS x lanes])."""
        step = ACCUMULATORS * self.lanes
        with prim_func("peak") as func:
            seed = T.arg("seed", T.buffer((self.lanes,), "float32"))
            out = T.arg("out", T.buffer((self.threads * step,), "float32"))
            with T.parallel(0, self.threads) if self.threads > 1 else T.serial(0, 1) as thread:
                acc = _accumulators(self.lanes)
                x = T.Bind(seed[ramp(0, self.lanes)])
                with T.serial(0, ROUNDS):
                    for a in acc:
                        T.buffer_store(a, a[ramp(0, self.lanes)] * x + x, [ramp(0, self.lanes)])
                _store(out, acc, self.lanes, thread * step)
        return func()


class Meter:
    """A rate that is measured again and again; `best` is the highest reading of this process so far.

    Neighbours on the machine only ever slow a reading, so the highest one is the closest to what the core can do.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self.best = 0.0

    def __call__(self) -> float:
        """One reading."""
        rate = self._read()
        self.best = max(self.best, rate)
        return rate


def fma_meter(target: Target) -> Meter:
    """GFLOP/s of independent FMAs on whole vectors in registers; a reading takes about a millisecond."""
    kernel = PeakKernel(_lanes(target))
    arrays = [np.full(n, 0.5, np.float32) for n in (kernel.lanes, ACCUMULATORS * kernel.lanes)]
    time = _timer(kernel.build(), target, arrays, number=1)
    return Meter(lambda: 1e-9 * kernel.flops / time())


def export_peak(target: Target, threads: int, path: Path) -> PeakKernel:
    """Writes the FMAs of `fma_meter`, on each of `threads`, as a library with an input "seed" like a network's."""
    kernel, calls = PeakKernel(_lanes(target), threads), KernelCalls()
    seed = relax.Var("seed", relax.TensorType((kernel.lanes,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [seed]):
        with builder.dataflow():
            output = builder.emit_output(calls.call(kernel, [seed], (threads * ACCUMULATORS * kernel.lanes,)))
        builder.emit_func_output(output)
    export_library(build(calls.add_to(builder.get()), llvm_target(target), {}), str(path), library_linker(target))
    return kernel


def l2_meter(target: Target) -> Meter:
    """GB/s of reading half of the L2 cache, which its data just came to."""
    return _read_meter(target, target.core.l2_kib * 1024 // 2)


def memory_meter(target: Target) -> Meter:
    """GB/s of reading more than caches hold."""
    return _read_meter(target, MEMORY_BYTES)


def roofs(fma: Meter, l2: Meter, memory: Meter) -> Roofs:
    """The best readings so far, after a few more of each."""
    for meter in (fma, l2, memory):
        for _ in range(READINGS):
            meter()
    return Roofs(fma.best, l2.best, memory.best)


def _read_meter(target: Target, nbytes: int) -> Meter:
    """GB/s of reading about `nbytes` in order, again and again."""
    lanes = _lanes(target)
    step = ACCUMULATORS * lanes
    steps = nbytes // (4 * step)
    with prim_func("read") as func:
        data = T.arg("data", T.buffer((steps * step,), "float32"))
        out = T.arg("out", T.buffer((step,), "float32"))
        acc = _accumulators(lanes)
        with T.serial(0, steps) as i:
            for j, a in enumerate(acc):
                T.buffer_store(a, a[ramp(0, lanes)] + data[ramp(i * step + j * lanes, lanes)], [ramp(0, lanes)])
        _store(out, acc, lanes)
    arrays = [np.ones(steps * step, np.float32), np.zeros(step, np.float32)]
    time = _timer(func(), target, arrays, number=max(1, (16 << 20) // nbytes))
    return Meter(lambda: 4e-9 * steps * step / time())


def _lanes(target: Target) -> int:
    return target.core.lanes(DType.FLOAT32)


def _accumulators(lanes: int) -> list:
    acc = [T.alloc_buffer((lanes,), "float32") for _ in range(ACCUMULATORS)]
    for i, a in enumerate(acc):
        T.buffer_store(a, broadcast(T.float32(i), lanes), [ramp(0, lanes)])
    return acc


def _store(out: object, acc: list, lanes: int, start: object = 0) -> None:
    for i, a in enumerate(acc):
        T.buffer_store(out, a[ramp(0, lanes)], [ramp(start + i * lanes, lanes)])


def _timer(function: object, target: Target, arrays: list, number: int) -> Callable[[], float]:
    """Seconds of one call, the mean of `number` calls."""
    library = tvm.compile(function.with_attr("global_symbol", "meter"), target=llvm_target(target))
    args = [tvm.runtime.tensor(array) for array in arrays]
    evaluate = library.mod.time_evaluator("meter", tvm.cpu(), number=number, repeat=1)
    return lambda: evaluate(*args).results[0]
