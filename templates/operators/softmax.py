"""Softmax: exp(x - max) over its sum, three steps over what stays in the first cache.

    for run in parallel(runs):
        largest = max over c of data[c][run]
        powers[c] = exp(data[c][run] - largest);  total += powers[c]
        output[c][run] = powers[c] / total

Along memory (inner = 1) vectors run along c, lanes are reduced in the end, and the powers wait in the output.
Otherwise a run is a few vectors of what lies side by side, and is copied: rows that are a power of two apart share
their place in caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pconvgen.templates.activations import exponential_to_1
from pconvgen.templates.layout.tiles import pieces
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, prim_func, ramp, shuffle

VECTORS = 4
"""Vectors of a run side by side, or accumulators along memory."""
SCRATCH = 1 << 12
"""Elements of a run: half of the first cache."""
PARTS = 32
"""Parts of equal work for threads; each has a scratch buffer of its own."""


@dataclass(frozen=True)
class SoftmaxKernel:
    """One instance: data float32 -> output float32 of the same shape.

    Attributes
    ----------
    shape: of the data.
    axis: whose elements add up to 1.
    lanes: float32 lanes of a vector.
    """

    shape: tuple[int, ...]
    axis: int
    lanes: int

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, output)."""
        outer, count, inner = 1, self.shape[self.axis], 1
        for size in self.shape[: self.axis]:
            outer *= size
        for size in self.shape[self.axis + 1 :]:
            inner *= size
        every = tuple(slice(0, size) for size in self.shape)
        with prim_func("softmax") as func:
            data = T.arg("data", T.buffer(self.shape, "float32"))
            output = T.arg("output", T.buffer(self.shape, "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("softmax"):
                T.reads(data[every])
                T.writes(output[every])
                source = T.decl_buffer((outer * count * inner,), "float32", data=data.data)
                target = T.decl_buffer((outer * count * inner,), "float32", data=output.data)
                if inner == 1:
                    with T.parallel(0, outer) as row:
                        _Row(source, target, T.Bind(T.Cast("int64", row) * count), count, self.lanes).emit()
                else:
                    self._columns(source, target, outer, count, inner)
        return func()

    def _columns(self, source: Buffer, target: Buffer, outer: int, count: int, inner: int) -> None:
        """Softmax of elements that are `inner` apart, for runs of elements side by side."""
        lanes, _ = pieces(inner, self.lanes)
        vectors = max(1, min(VECTORS, inner // lanes, SCRATCH // (count * lanes)))
        width = vectors * lanes
        strips = -(-inner // width)
        share, at = -(-outer * strips // PARTS), ramp(0, lanes)
        with T.parallel(0, -(-outer * strips // share)) as part:
            # 32 bits, as processors of 32 bits divide them without a library.
            begin = T.Bind(T.Cast("int32", part) * T.int32(share))
            end = T.Bind(T.min(begin + T.int32(share), T.int32(outer * strips)))
            run = T.alloc_buffer((count * width,), "float32")
            largest, totals = ([T.alloc_buffer((lanes,), "float32") for _ in range(vectors)] for _ in range(2))
            with T.serial(begin, end) as number:
                image = T.Bind(T.Cast("int64", number // T.int32(strips)))
                strip = T.Bind(T.Cast("int64", number % T.int32(strips)))
                first = T.Bind(image * (count * inner) + T.min(strip * width, inner - width))
                for high, sums in zip(largest, totals, strict=True):
                    T.buffer_store(high, broadcast(T.float32(float("-inf")), lanes), [at])
                    T.buffer_store(sums, broadcast(T.float32(0), lanes), [at])

                def each(step: Callable[[int, Expr, Expr], None]) -> None:
                    """step(vector, place in the tensors, place in the run)"""
                    with T.serial(0, count) as c:
                        row = T.Bind(T.Cast("int64", c))
                        for vector in range(vectors):
                            place = ramp(first + row * inner + vector * lanes, lanes)
                            step(vector, place, ramp(row * width + vector * lanes, lanes))

                def find(vector: int, place: Expr, inside: Expr) -> None:
                    value = T.Bind(source[place])
                    T.buffer_store(run, value, [inside])
                    T.buffer_store(largest[vector], T.max(largest[vector][at], value), [at])

                def raise_(vector: int, _place: Expr, inside: Expr) -> None:
                    value = exponential_to_1(lanes, T.Bind(run[inside] - largest[vector][at]))
                    T.buffer_store(run, value, [inside])
                    T.buffer_store(totals[vector], totals[vector][at] + value, [at])

                def divide(vector: int, place: Expr, inside: Expr) -> None:
                    T.buffer_store(target, run[inside] * totals[vector][at], [place])

                each(find)
                each(raise_)
                for sums in totals:
                    T.buffer_store(sums, broadcast(T.float32(1), lanes) / sums[at], [at])
                each(divide)


@dataclass(frozen=True, eq=False)
class _Row:
    """Softmax of `count` elements in a row from `first` on."""

    source: Buffer
    target: Buffer
    first: Expr
    count: int
    lanes: int

    def emit(self) -> None:
        def nothing(value: float) -> list[Expr]:
            sums = [T.alloc_buffer((self.lanes,), "float32") for _ in range(VECTORS)]
            for each in sums:
                T.buffer_store(each, broadcast(T.float32(value), self.lanes), [ramp(0, self.lanes)])
            return sums

        largest, totals = nothing(float("-inf")), nothing(0)

        def find(number: int, place: Expr, lanes: int) -> None:
            at = ramp(0, lanes)
            T.buffer_store(largest[number], T.max(largest[number][at], self.source[place]), [at])

        self._each(find)
        high = self._across(largest, T.max)

        def raise_(number: int, place: Expr, lanes: int) -> None:
            at = ramp(0, lanes)
            value = exponential_to_1(lanes, T.Bind(self.source[place] - broadcast(high, lanes)))
            T.buffer_store(self.target, value, [place])
            T.buffer_store(totals[number], totals[number][at] + value, [at])

        self._each(raise_)
        scale = T.Bind(T.float32(1) / self._across(totals, lambda a, b: a + b))

        def divide(_number: int, place: Expr, lanes: int) -> None:
            T.buffer_store(self.target, self.target[place] * broadcast(scale, lanes), [place])

        self._each(divide)

    def _each(self, step: Callable[[int, Expr, int], None]) -> None:
        """step(accumulator, place, lanes) for vectors that cover the row, each element once."""
        whole = self.count // self.lanes
        done = 0
        for vectors in (VECTORS, 1):
            rounds = (whole - done) // vectors
            if rounds:
                with T.serial(0, rounds) as i:
                    begin = T.Bind(self.first + (T.Cast("int64", i) * vectors + done) * self.lanes)
                    for number in range(vectors):
                        step(number, ramp(begin + number * self.lanes, self.lanes), self.lanes)
            done += rounds * vectors
        begin, lanes = whole * self.lanes, self.lanes // 2
        while begin < self.count:
            if self.count - begin >= lanes:
                step(0, ramp(self.first + begin, lanes), lanes)
                begin += lanes
            lanes //= 2

    def _across(self, vectors: list[Expr], combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """All lanes of all vectors together."""
        value = vectors[0][ramp(0, self.lanes)]
        for vector in vectors[1:]:
            value = combine(value, vector[ramp(0, self.lanes)])
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            value = T.Bind(value)
            value = combine(shuffle([value], range(lanes)), shuffle([value], range(lanes, 2 * lanes)))
        return T.Bind(value)
