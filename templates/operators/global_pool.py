"""Pooling of whole planes, each of which is reduced as one run of numbers."""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.templates.layout.store import tensor_shape
from pconvgen.templates.operators.reducing import combined, together
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, cast, number, prim_func, ramp, shuffle
from pconvgen.values.planes import PlaneLayout

SUMS = 4
"""Accumulators of a global pool, to hide the latency of adding."""


@dataclass(frozen=True)
class GlobalPoolKernel:
    """One instance: data [batch, source.size] -> output float32 [batch * channels].

    Attributes
    ----------
    kind: max or avg.
    batch: images.
    channels: of each image.
    source: where the input lies; its rows follow each other, or only zeros of a mean lie between them.
    slot: first channel among those of the layout.
    lanes: of a vector.
    dtype: of the data.
    computed: the format in which planes are reduced.
    """

    kind: str
    batch: int
    channels: int
    source: PlaneLayout
    slot: int
    lanes: int
    dtype: str = "float32"
    computed: str = "float32"

    @staticmethod
    def readable(kind: str, source: PlaneLayout) -> bool:
        """Whether planes are runs of numbers: rows that touch, or, which adds nothing to a mean, zeros between them."""
        return source.seamless or (kind == "avg" and source.main is not None and not source.interleaved)

    @property
    def pixels(self) -> int:
        """Numbers of a plane from its first element to its last."""
        return (self.source.height - 1) * self.source.row_stride + self.source.width

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, output)."""
        with prim_func("globalpool") as func:
            source, planes = self.source, self.batch * self.channels
            shape = tensor_shape(source, self.batch)
            data = T.arg("data", T.buffer(shape, self.dtype))
            output = T.arg("output", T.buffer((planes,), "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("globalpool"):
                T.reads(data[tuple(slice(0, size) for size in shape)])
                T.writes(output[0:planes])
                flat = T.decl_buffer((self.batch * source.size,), self.dtype, data=data.data)
                with T.parallel(0, planes) as plane:
                    image = T.Bind(T.Cast("int64", plane // self.channels))
                    channel = T.Bind(T.Cast("int64", plane % self.channels) + self.slot)
                    first = T.Bind(image * source.size + channel * source.channel + (source.main or 0))
                    value = self._plane(flat, first)
                    size = number(source.height * source.width, self.computed, 1)
                    scaled = value / size if self.kind == "avg" else value
                    T.buffer_store(output, cast(scaled, "float32"), [plane])
        return func()

    def _plane(self, data: Buffer, first: Expr) -> Expr:
        """The reduction of the numbers from `first` on."""
        whole = self.pixels // self.lanes

        def load(start: Expr, lanes: int) -> Expr:
            return cast(data[ramp(start, lanes)], self.computed)

        sums = [T.alloc_buffer((self.lanes,), self.computed) for _ in range(min(SUMS, whole))]
        at = ramp(0, self.lanes)
        for index, total in enumerate(sums):
            T.buffer_store(total, load(first + index * self.lanes, self.lanes), [at])
        rounds = whole // SUMS
        if rounds > 1:
            with T.serial(0, rounds - 1) as i:
                begin = T.Bind(first + (T.Cast("int64", i) + 1) * (SUMS * self.lanes))
                for index, total in enumerate(sums):
                    value = load(begin + index * self.lanes, self.lanes)
                    T.buffer_store(total, combined(self.kind, total[at], value), [at])
        parts = [total[at] for total in sums]
        done = max(rounds, 1) * SUMS if rounds else len(sums)
        parts += [load(first + v * self.lanes, self.lanes) for v in range(done, whole)]
        numbers = [self._across(together(self.kind, iter(parts)), self.lanes)] if parts else []
        # The rest in vectors of half as many lanes each.
        begin, lanes = whole * self.lanes, self.lanes
        while begin < self.pixels:
            lanes //= 2
            if self.pixels - begin >= lanes:
                numbers.append(self._across(load(first + begin, lanes), lanes))
                begin += lanes
        return together(self.kind, iter(numbers))

    def _across(self, vector: Expr, lanes: int) -> Expr:
        """The reduction of a vector's lanes."""
        while lanes > 1:
            vector = T.Bind(vector)
            lanes //= 2
            vector = combined(self.kind, shuffle([vector], range(lanes)), shuffle([vector], range(lanes, 2 * lanes)))
        return T.Bind(vector)
