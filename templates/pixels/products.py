"""The products of a tile: entries are added to accumulators, with weights and inputs loaded as seldom as possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

from pconvgen.templates.layout.tiles import Vector
from pconvgen.templates.weights import weights
from pconvgen.tvm_compat.tir import Buffer, Expr, T, broadcast, lane, load_strided, ramp
from pconvgen.values.isa import Isa
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.workload import ConvWorkload

_WeightAt = Callable[[int, int], Expr]
"""(number of a weight, lanes) -> the weight, broadcast."""

_Anchors = dict[int, tuple[int, Expr]]
"""Offset of a row of inputs -> an address near it: its value, and the same as LLVM sees it."""

PAIR_REACH = 64
"""Vectors behind an address that paired loads reach (the immediate of AArch64's ldp has 7 bits, with sign)."""

ENTRIES = 4
"""Entries of one tap that a round of the loop adds, where weights are loaded as vectors."""


class Products:
    """Emits the loops over entries.

    Parameters
    ----------
    workload, isa, source, group, bodies: see PixelKernel.
    data, offsets, values, indptr: the kernel's buffers.
    """

    def __init__(
        self,
        workload: ConvWorkload,
        isa: Isa,
        source: PlaneLayout,
        group: int,
        bodies: tuple[tuple[int, ...], ...],
        *,
        data: Buffer,
        offsets: Buffer,
        values: Buffer,
        indptr: Buffer,
    ) -> None:
        self.precision, self.isa, self.row_stride = workload.precision, isa, source.row_stride
        self.down, self.across = source.step(workload)
        self.group, self.bodies = group, bodies
        self.data, self.offsets, self.values, self.indptr = data, offsets, values, indptr

    def add(self, acc: list[list[Buffer]], row: Expr, vectors: tuple[Vector, ...], source: Expr) -> None:
        """The loops over the entries of a row of `indptr`, into accumulators [G][vectors] of a tile at `source`."""
        bodies = len(self.bodies)
        for b, body in enumerate(self.bodies):
            # Bound once: LLVM would reload them in the loop, as stores might alias.
            begin = T.Bind(self.indptr[row * bodies + b])
            end = T.Bind(self.indptr[row * bodies + (b + 1)])
            anchors = self._anchors(body, vectors)
            # One tap has few FMAs: several entries share loads of weights and offsets, and the branch.
            if self.isa.lane_indexed_fma and len(body) == 1:
                rounds = T.Bind((end - begin) // ENTRIES)
                with T.serial(0, rounds) as r:
                    self._entries(acc, vectors, source, body, anchors, T.Bind(begin + r * ENTRIES), ENTRIES)
                begin = T.Bind(begin + rounds * ENTRIES)
            with T.serial(begin, end) as e:
                self._entries(acc, vectors, source, body, anchors, e, 1)

    def _entries(
        self,
        acc: list[list[Buffer]],
        vectors: tuple[Vector, ...],
        source: Expr,
        body: tuple[int, ...],
        anchors: _Anchors,
        first: Expr,
        count: int,
    ) -> None:
        """Adds `count` entries from `first`."""
        taps, group = len(body), self.group
        # 64-bit, so that taps fold into the addresses of the loads.
        origins = [T.Bind(T.Cast("int64", self.offsets[first + n]) + source) for n in range(count)]
        weight = self._weights(T.Bind(T.Cast("int64", first) * (taps * group)), count * taps * group)
        for n, origin in enumerate(origins):
            if group == 1:
                self._by_input(acc[0], vectors, body, anchors, origin, _from(n * taps, weight))
                continue
            for k, tap in enumerate(body):
                self._by_tap(acc, vectors, tap, anchors, origin, _from((n * taps + k) * group, weight))

    def _anchors(self, body: tuple[int, ...], vectors: tuple[Vector, ...]) -> _Anchors:
        """For each tap and row of a tile an address near its first vector: its value, and the same hidden."""
        lanes = self.isa.lanes(self.precision.arithmetic)[0]
        width = max(vector.column + vector.lanes for vector in vectors) * self.across
        hidden: dict[int, Expr] = {0: T.int64(0)}
        starts = {tap + self._row(vector) for tap in body for vector in vectors}
        if self.isa.paired == 1:
            return dict.fromkeys(starts, (0, hidden[0]))
        anchors = {}
        for start in sorted(starts):
            near = [at for at in hidden if (start - at) % lanes == 0 and start - at + width <= PAIR_REACH * lanes]
            at = max(near, default=start)
            if at not in hidden:
                hidden[at] = T.Bind(self.hidden(T.int64(at)))
            anchors[start] = (at, hidden[at])
        return anchors

    def hidden(self, offset: Expr) -> Expr:
        """The int64 `offset` in a form that LLVM cannot fold into addresses.

        Where loads reach only multiples of a vector and come in pairs, LLVM then keeps each address in a register and
        pairs the loads behind it. Otherwise it addresses every load from one register, and most of them take an
        addition and come alone.
        """
        # What LLVM does not know: indptr begins with 0.
        return offset if self.isa.paired == 1 else T.shift_left(offset, T.Cast("int64", self.indptr[0]))

    def _row(self, vector: Vector) -> int:
        """Distance of the vector's row of inputs from that of the tile."""
        return vector.row * self.down * self.row_stride

    def _load(self, start: Expr, lanes: int) -> Expr:
        return T.Bind(load_strided(self.data, start, self.across, lanes))

    def _by_input(
        self, acc: list[Buffer], vectors: tuple[Vector, ...], body: tuple[int, ...], anchors: _Anchors, origin: Expr,
        weight: _WeightAt,
    ) -> None:  # fmt: skip
        """acc[i] += weight(k) * data[origin + body[k] + i], every input loaded once for all its taps."""
        addresses = dict(anchors.values())
        uses: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        for (k, tap), (i, vector) in product(enumerate(body), enumerate(vectors)):
            start = tap + self._row(vector)
            at, _ = anchors[start]
            uses.setdefault((at, start - at + vector.column * self.across, vector.lanes), []).append((k, i))
        for (at, offset, lanes), pairs in sorted(uses.items()):
            x = self._load(origin + addresses[at] + offset, lanes)
            for k, i in pairs:
                _fma(acc[i], weight(k, lanes), x, lanes)

    def _by_tap(
        self, acc: list[list[Buffer]], vectors: tuple[Vector, ...], tap: int, anchors: _Anchors, origin: Expr,
        weight: _WeightAt,
    ) -> None:  # fmt: skip
        """acc[j][i] += weight(j) * data[origin + tap + i] for one tap."""
        group = self.group

        def load(vector: Vector) -> Expr:
            start = tap + self._row(vector)
            at, address = anchors[start]
            return self._load(origin + address + (start - at + vector.column * self.across), vector.lanes)

        # Of weights and inputs, the fewer stay in registers while the others stream by.
        if len(vectors) < group and not self.isa.lane_indexed_fma:
            xs = [load(vector) for vector in vectors]
            for j in range(group):
                for a, x, vector in zip(acc[j], xs, vectors, strict=True):
                    _fma(a, weight(j, vector.lanes), x, vector.lanes)
        else:
            for i, vector in enumerate(vectors):
                x = load(vector)
                for j in range(group):
                    _fma(acc[j][i], weight(j, vector.lanes), x, vector.lanes)

    def _weights(self, base: Expr, count: int) -> _WeightAt:
        """Access to the `count` weights of an entry, each broadcast to a vector of some lanes."""
        isa, computed = self.isa, self.precision.arithmetic
        widths, converted = isa.lanes(computed), self.precision.weights != computed
        # Vectors of weights come together where FMA multiplies by one lane, or where they are converted.
        sizes = sorted({widths[0] if isa.lane_indexed_fma else 4, 4}, reverse=True)
        together = set(widths) if isa.lane_indexed_fma or converted else set()
        # Each is loaded when it is first needed: all at once would take registers from the accumulators.
        loaded: dict[tuple[int, int], Expr] = {}

        def once(n: int, lanes: int, value: Callable[[], Expr]) -> Expr:
            if (n, lanes) not in loaded:
                loaded[n, lanes] = T.Bind(value())
            return loaded[n, lanes]

        def together_at(at: Expr) -> Expr:
            return weights(self.values[at], computed, isa)

        def weight(n: int, lanes: int) -> Expr:
            if lanes in together:
                for size in sizes:
                    first = n // size * size
                    if first + size <= count:
                        vector = once(first, 0, partial(together_at, ramp(base + first, size)))
                        return broadcast(lane(vector, n - first), lanes)
            return once(n, lanes, lambda: weights(broadcast(self.values[base + n], lanes), computed, isa))

        return weight


def _from(first: int, weight: _WeightAt) -> _WeightAt:
    """Access to the weights behind the first ones."""
    return lambda number, lanes: weight(first + number, lanes)


def _fma(acc: Buffer, weight: Expr, x: Expr, lanes: int) -> None:
    T.buffer_store(acc, acc[ramp(0, lanes)] + weight * x, [ramp(0, lanes)])
