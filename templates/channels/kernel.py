"""Sparse matrix-vector product, vectors along output channels: linear layers and convolutions of single pixels.

    for group in parallel(chunks of groups):
        for images of the batch, a few at a time:
            acc[unroll][images][G / lanes] = 0
            for `unroll` entries at a time:
                acc[u][p][v] += values[entry + u, v] * data[p, offset[entry + u]]
            sum over u, epilogue, store

Each weight is read once per few images; with one image the layer runs at the speed of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.templates.epilogue import finish
from pconvgen.templates.weights import weights
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, cast, number, prefetch, prim_func, ramp
from pconvgen.values.isa import Isa
from pconvgen.values.planes import CACHE_LINE
from pconvgen.values.schedule import ChannelSchedule
from pconvgen.values.workload import ConvWorkload

AHEAD = 1024
"""Weights between those that are multiplied and those that are fetched."""


@dataclass(frozen=True)
class ChannelKernel:
    """One instance of the template.

    Attributes
    ----------
    workload: a 1x1 convolution of one pixel: [batch, in_channels] -> [batch, out_channels].
    schedule, isa: how it is computed, and for which instruction set.
    group: filters per group, a multiple of the schedule's lanes.
    groups: number of groups.
    bodies: channel offsets of the taps of the only body.
    consecutive: whether the filters of every group are neighbours, without padding, so that vectors are stored.
    chunks: parts of nearly equal work into which the groups are divided for threads.
    """

    workload: ConvWorkload
    schedule: ChannelSchedule
    isa: Isa
    group: int
    groups: int
    bodies: tuple[tuple[int, ...], ...]
    consecutive: bool
    chunks: int

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data [batch, in_channels], offsets int32 [entries], values [entries * K * G], indptr int32
        [groups + 1], order int32 [groups * G], chunks int32 [chunks + 1], then bias [out_channels] and residual
        [batch, out_channels] when the epilogue has them, then the output; floats in the formats of the workload's
        precision, the bias in that of the sums.
        """
        return _Emitter(self).function()


class _Emitter:
    """Emits one kernel. Methods append to the function that is open; attributes are its buffers."""

    def __init__(self, kernel: ChannelKernel) -> None:
        self.kernel, self.workload, self.schedule = kernel, kernel.workload, kernel.schedule
        self.precision = kernel.workload.precision

    def function(self) -> PrimFunc:
        kernel, w, step = self.kernel, self.workload, self.schedule.images
        with prim_func("channels", flat=True) as func:
            self._arguments()
            with (
                T.parallel(0, kernel.chunks) if kernel.chunks > 1 else T.serial(0, 1) as chunk,
                T.serial(self.chunks[chunk], self.chunks[chunk + 1]) as g,
            ):
                if w.batch >= step:
                    with T.serial(0, w.batch // step) as n:
                        self._group(g, T.Bind(T.Cast("int64", n) * step), step)
                if w.batch % step:
                    self._group(g, T.int64(w.batch // step * step), w.batch % step)
        return func()

    def _arguments(self) -> None:
        kernel, w = self.kernel, self.workload
        stored, computed = self.precision.activations, self.precision.arithmetic
        entries = T.int64()
        data = T.arg("data", T.buffer((w.batch, w.in_channels), stored))
        self.offsets = T.arg("offsets", T.buffer((entries,), "int32"))
        self.values = T.arg(
            "values", T.buffer((entries * (len(kernel.bodies[0]) * kernel.group),), self.precision.weights)
        )
        self.indptr = T.arg("indptr", T.buffer((kernel.groups + 1,), "int32"))
        self.order = T.arg("order", T.buffer((kernel.groups * kernel.group,), "int32"))
        self.chunks = T.arg("chunks", T.buffer((kernel.chunks + 1,), "int32"))
        self.bias = T.arg("bias", T.buffer((w.out_channels,), computed)) if w.epilogue.bias else None
        out_shape = (w.batch, w.out_channels)
        residual = T.arg("residual", T.buffer(out_shape, stored)) if w.epilogue.residual else None
        output = T.arg("output", T.buffer(out_shape, stored))
        size = w.batch * w.out_channels
        self.data = T.decl_buffer((w.batch * w.in_channels,), stored, data=data.data)
        self.output = T.decl_buffer((size,), stored, data=output.data)
        self.residual = None if residual is None else T.decl_buffer((size,), stored, data=residual.data)

    def _group(self, g: Expr, image: Expr, images: int) -> None:
        """The outputs of one group of filters for `images` images from `image` on."""
        s, group, computed = self.schedule, self.kernel.group, self.precision.arithmetic
        vectors = range(group // s.lanes)
        acc = [
            [[T.alloc_buffer((s.lanes,), computed) for _ in vectors] for _ in range(images)] for _ in range(s.unroll)
        ]
        for a in (a for part in acc for row in part for a in row):
            T.buffer_store(a, number(0, computed, s.lanes), [ramp(0, s.lanes)])
        begin, end = T.Bind(self.indptr[g]), T.Bind(self.indptr[g + 1])
        rounds = T.Bind((end - begin) // s.unroll)
        with T.serial(0, rounds) as r:
            first = T.Bind(begin + r * s.unroll)
            self._prefetch(first)
            for u in range(s.unroll):
                self._entry(acc[u], first + u, image)
        if s.unroll > 1:
            with T.serial(begin + rounds * s.unroll, end) as e:
                self._entry(acc[0], e, image)
        for p in range(images):
            sums = [acc[0][p][v][ramp(0, s.lanes)] for v in vectors]
            for u in range(1, s.unroll):
                sums = [total + acc[u][p][v][ramp(0, s.lanes)] for v, total in enumerate(sums)]
            self._store(g, T.Bind((image + p) * self.workload.out_channels), sums)

    def _prefetch(self, first: Expr) -> None:
        """Fetches the weights and offsets of a later round: they are read once, from memory, in order."""
        entry, count = len(self.kernel.bodies[0]) * self.kernel.group, self.schedule.unroll
        ahead = -(-AHEAD // entry)
        values = T.Bind(T.Cast("int64", first + ahead) * entry)
        for line in range(0, count * entry, CACHE_LINE * 4 // self.precision.weight_bytes):
            prefetch(self.values, values + line)
        prefetch(self.offsets, T.Cast("int64", first + ahead))

    def _entry(self, acc: list[list[Buffer]], e: Expr, image: Expr) -> None:
        """acc[p][v] += values[e, v] * data[p, offset] for the taps of one entry."""
        lanes, group, body = self.schedule.lanes, self.kernel.group, self.kernel.bodies[0]
        computed = self.precision.arithmetic
        channel = T.Bind(T.Cast("int64", self.offsets[e]) + image * self.workload.in_channels)
        base = T.Bind(T.Cast("int64", e) * (len(body) * group))
        for k, tap in enumerate(body):
            loaded = [self.values[ramp(base + (k * group + v), lanes)] for v in range(0, group, lanes)]
            converted = [T.Bind(weights(vector, computed, self.kernel.isa)) for vector in loaded]
            for p, row in enumerate(acc):
                x = cast(self.data[channel + (p * self.workload.in_channels + tap)], computed)
                x = T.Bind(broadcast(x, lanes))
                for a, w in zip(row, converted, strict=True):
                    T.buffer_store(a, a[ramp(0, lanes)] + w * x, [ramp(0, lanes)])

    def _store(self, g: Expr, row: Expr, sums: list[Expr]) -> None:
        """Finishes and stores the outputs of a group for the image whose outputs begin at `row`."""
        lanes, group, epilogue = self.schedule.lanes, self.kernel.group, self.workload.epilogue
        if self.kernel.consecutive:
            first = T.Bind(T.Cast("int64", self.order[g * group]))
            for v, value in enumerate(sums):
                bias = None if self.bias is None else self.bias[ramp(first + v * lanes, lanes)]
                at = ramp(row + first + v * lanes, lanes)
                other = None if self.residual is None else self.residual[at]
                self._put(finish(epilogue, value, lanes, bias, other), at)
            return
        scratch = T.alloc_buffer((group,), self.precision.arithmetic)
        for v, value in enumerate(sums):
            T.buffer_store(scratch, value, [ramp(v * lanes, lanes)])
        with T.serial(0, group) as j:
            f = T.Bind(T.Cast("int64", self.order[g * group + j]))
            with T.If(f >= 0), T.Then():
                bias = None if self.bias is None else self.bias[f]
                other = None if self.residual is None else self.residual[row + f]
                self._put(finish(epilogue, scratch[j], 1, bias, other), row + f)

    def _put(self, outputs: Expr, at: Expr) -> None:
        T.buffer_store(self.output, cast(outputs, self.precision.activations), [at])
