"""Direct sparse convolution, vectors along pixels: the template of every convolution.

For each group of G filters the accumulators of a tile of pixels stay in registers while the group's entries go by:

    for task in parallel(images x row blocks x chunks of groups):
        for tile in row block:                            # or groups outside and tiles inside
            for part of the input channels:               # mostly one
                for group in chunk:
                    acc[G][vectors] = 0                   # or the sums of the parts before
                    for body in bodies:                   # patterns, or just one
                        for entry in indptr[part, group, body]:
                            for k, tap in enumerate(body):    # unrolled
                                acc[j][i] += values[entry, k, j] * input[offset[entry] + tap + i]
                    epilogue, store                       # or keep the sums for the next part

A tile is a piece of some rows or, where rows follow each other without a gap in input and output, a run of pixels
that crosses rows. With one filter per group a vector of input is loaded once for all taps of a body that read it:
rows of a tile share the loads of the taps of a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from pconvgen.templates.epilogue import finish
from pconvgen.templates.layout.store import PlaneWriter, tensor_shape
from pconvgen.templates.layout.tiles import TileRun, Vector, cut, pieces
from pconvgen.templates.weights import weights
from pconvgen.tvm_compat.tir import (
    PrimFunc,
    T,
    broadcast,
    cast,
    lane,
    load_strided,
    number,
    part,
    prefetch,
    prim_func,
    ramp,
)
from pconvgen.values.isa import Isa
from pconvgen.values.planes import LINE, PlaneLayout
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload

_WeightAt = Callable[[int, int], Any]
"""(number of a weight, lanes) -> the weight, broadcast."""

_Anchors = dict[int, tuple[int, Any]]
"""Offset of a row of inputs -> an address near it: its value, and the same as LLVM sees it."""

PAIR_REACH = 64
"""Vectors behind an address that paired loads reach (the immediate of AArch64's ldp has 7 bits, with sign)."""

ENTRIES = 4
"""Entries of one tap that a round of the loop adds, where weights are loaded as vectors."""


@dataclass(frozen=True)
class PixelKernel:
    """One instance of the template: everything that its code depends on.

    Attributes
    ----------
    workload, schedule, isa: what is computed, how, and for which instruction set.
    source, target: where input and output lie.
    residual: where the tensor lies that is added; None when there is none.
    slots: first channels of output and residual among those of their layouts.
    group: filters per group, G.
    groups: number of groups.
    bodies: tap offsets of each body in elements of the input layout.
    padded_groups: whether some lane of some group computes no filter.
    chunks: parts of nearly equal work into which the groups are divided for threads.
    """

    workload: ConvWorkload
    schedule: PixelSchedule
    isa: Isa
    source: PlaneLayout
    target: PlaneLayout
    residual: PlaneLayout | None
    slots: tuple[int, int]
    group: int
    groups: int
    bodies: tuple[tuple[int, ...], ...]
    padded_groups: bool
    chunks: int

    @property
    def parts(self) -> int:
        """Parts of the input channels, one after the other for all filters."""
        channels = self.schedule.channels
        return -(-self.workload.in_channels // channels) if channels else 1

    @property
    def row_blocks(self) -> int:
        """Row blocks of an image; the last one overlaps the one before it when rows do not divide."""
        return -(-self.workload.out_height // self.schedule.rows)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data [batch, source.size] (NCHW when it is plain), offsets int32 [entries], values
        [entries * K * G], indptr int32 [parts * groups * bodies + 1], order int32 [groups * G], chunks int32
        [chunks + 1], then bias [out_channels] and residual when the epilogue has them, then the output.
        `entries` is symbolic: layers of equal shape and schedule share their code.
        """
        return _Emitter(self).function()


def block_tiles(workload: ConvWorkload, schedule: PixelSchedule, isa: Isa, source: PlaneLayout) -> tuple[TileRun, ...]:
    """The register tiles of a row block."""
    across = schedule.height == 0
    return cut(
        1 if across else schedule.rows,
        schedule.rows * workload.out_width if across else workload.out_width,
        lanes=schedule.lanes,
        narrow=min(isa.lanes(workload.precision.arithmetic)),
        vectors=schedule.vectors,
        height=max(1, schedule.height),
        # Without slack behind the input, vectors must not run past its end.
        clamp=source.slack < schedule.lanes * source.step(workload)[1],
    )


@dataclass(frozen=True, eq=False)
class _Tile:
    """A tile that the open loops are at.

    Attributes
    ----------
    vectors: relative to the tile.
    number: of the tile in the block.
    source: offset of its first input.
    row: of its first output in the image.
    column: of its first output, as a sum: a multiple of the columns between tiles, and a number.
    """

    vectors: tuple[Vector, ...]
    number: Any
    source: Any
    row: Any
    column: tuple[Any, int]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Where a group keeps its sums of a tile between parts of the input channels."""

    buffer: Any
    part: Any
    start: Any

    def load(self, acc: list[list[Any]]) -> None:
        for a, at in self._places(acc):
            T.buffer_store(a, self.buffer[at], [ramp(0, _lanes(a))])

    def store(self, acc: list[list[Any]]) -> None:
        for a, at in self._places(acc):
            T.buffer_store(self.buffer, a[ramp(0, _lanes(a))], [at])

    def _places(self, acc: list[list[Any]]) -> Iterator[tuple[Any, Any]]:
        at = 0
        for a in chain.from_iterable(acc):
            yield a, ramp(self.start + at, _lanes(a))
            at += _lanes(a)


class _Emitter:
    """Emits one kernel. Methods append to the function that is open; attributes are its buffers."""

    def __init__(self, kernel: PixelKernel) -> None:
        self.kernel, self.workload, self.schedule = kernel, kernel.workload, kernel.schedule
        self.precision = kernel.workload.precision
        self.tiles = block_tiles(kernel.workload, kernel.schedule, kernel.isa, kernel.source)
        self.down, self.across = kernel.source.step(kernel.workload)

    def function(self) -> PrimFunc:
        kernel, w, s = self.kernel, self.workload, self.schedule
        source, target, residual = kernel.source, kernel.target, kernel.residual
        with prim_func("pixels", flat=True) as func:
            self._arguments()
            tasks = w.batch * kernel.row_blocks * kernel.chunks
            with T.parallel(0, tasks) if tasks > 1 else T.serial(0, 1) as task:
                chunk = T.Bind(task % kernel.chunks)
                block = T.Bind(T.Cast("int64", task // kernel.chunks % kernel.row_blocks))
                image = T.Bind(T.Cast("int64", task // (kernel.chunks * kernel.row_blocks)))
                begin, end = T.Bind(self.chunks[chunk]), T.Bind(self.chunks[chunk + 1])
                row = T.Bind(T.min(block * s.rows, w.out_height - s.rows))
                first = T.Bind(image * source.size + row * (self.down * source.line))
                self.image_out = T.Bind(image * target.size + kernel.slots[0] * target.channel)
                if residual is not None:
                    self.image_add = T.Bind(
                        image * residual.size + (kernel.slots[1] * residual.channel + (residual.main or 0))
                    )
                next_block = first + s.rows * self.down * source.line
                if s.filters_inside:
                    sums = (
                        T.alloc_buffer((kernel.groups * self.sums,), self.precision.arithmetic)
                        if kernel.parts > 1
                        else None
                    )
                    for tile in self._tiles(first, row):
                        with T.serial(0, kernel.parts) as part_, T.serial(begin, end) as g:
                            kept = None if sums is None else _Sums(sums, part_, T.Bind((g - begin) * self.sums))
                            self._group(g, tile, kept, next_block)
                else:
                    with T.serial(begin, end) as g:
                        for tile in self._tiles(first, row):
                            self._group(g, tile, None, next_block)
                self._zeros(begin, end, row)
        return func()

    def _arguments(self) -> None:
        kernel, w = self.kernel, self.workload
        bodies, taps = len(kernel.bodies), len(kernel.bodies[0])
        stored, computed = self.precision.activations, self.precision.arithmetic
        entries = T.int64()
        data = T.arg("data", T.buffer(tensor_shape(kernel.source, w.batch), computed))
        self.offsets = T.arg("offsets", T.buffer((entries,), "int32"))
        self.values = T.arg("values", T.buffer((entries * (taps * kernel.group),), self.precision.weights))
        self.indptr = T.arg("indptr", T.buffer((kernel.parts * kernel.groups * bodies + 1,), "int32"))
        self.order = T.arg("order", T.buffer((kernel.groups * kernel.group,), "int32"))
        self.chunks = T.arg("chunks", T.buffer((kernel.chunks + 1,), "int32"))
        self.bias = T.arg("bias", T.buffer((w.out_channels,), computed)) if w.epilogue.bias else None
        residual = None
        if kernel.residual is not None:
            residual = T.arg("residual", T.buffer(tensor_shape(kernel.residual, w.batch), stored))
        output = T.arg("output", T.buffer(tensor_shape(kernel.target, w.batch), stored))
        self.data = T.decl_buffer((w.batch * kernel.source.size,), computed, data=data.data)
        self.residual = None
        if residual is not None:
            self.residual = T.decl_buffer((w.batch * kernel.residual.size,), stored, data=residual.data)
        flat = T.decl_buffer((w.batch * kernel.target.size,), stored, data=output.data)
        self.writer = PlaneWriter(kernel.target, flat, kernel.isa.lanes(computed)[0])

    @property
    def sums(self) -> int:
        """Elements that a group needs to keep the sums of a tile, whole cache lines."""
        lanes = max(sum(vector.lanes for vector in run.vectors) for run in self.tiles)
        return -(-self.kernel.group * lanes // LINE) * LINE

    def _tiles(self, source: Any, first_row: Any) -> Iterator[_Tile]:
        """Opens the loops over the tiles of a block."""
        line = self.kernel.source.line
        before = 0
        for run in self.tiles:
            with T.serial(0, run.rows) as y, T.serial(0, run.columns) as x:
                number = T.Bind(T.Cast("int64", y) * run.columns + x + before)
                row = T.Cast("int64", y) * run.row_step + run.first_row
                column = T.Cast("int64", x) * run.column_step
                inputs = row * (self.down * line) + (column + run.first_column) * self.across
                tile_in = T.Bind(source + self._hidden(inputs))
                yield _Tile(run.vectors, number, tile_in, T.Bind(first_row + row), (column, run.first_column))
            before += run.rows * run.columns

    def _group(self, g: Any, tile: _Tile, sums: _Sums | None, next_block: Any) -> None:
        """The outputs of one group of filters in one tile, or a part of their sums."""
        kernel = self.kernel
        if self.schedule.prefetch:
            # Each part of the channels fetches a part of its own.
            turn = tile.number if sums is None else tile.number * kernel.parts + sums.part
            self._prefetch(next_block, turn * kernel.groups + g)
        # Each accumulator is a buffer of its own: LLVM keeps small ones in registers, TVM puts large ones on the heap.
        acc = [
            [T.alloc_buffer((v.lanes,), self.precision.arithmetic) for v in tile.vectors] for _ in range(kernel.group)
        ]
        if sums is None:
            _zero(acc)
            self._accumulate(acc, g, tile)
            self._finish(acc, g, tile)
            return
        with T.If(sums.part == 0):
            with T.Then():
                _zero(acc)
            with T.Else():
                sums.load(acc)
        self._accumulate(acc, sums.part * kernel.groups + g, tile)
        with T.If(sums.part == kernel.parts - 1):
            with T.Then():
                self._finish(acc, g, tile)
            with T.Else():
                sums.store(acc)

    def _finish(self, acc: list[list[Any]], g: Any, tile: _Tile) -> None:
        target, residual = self.kernel.target, self.kernel.residual
        rows = {vector.row: T.Bind(self.writer.row(tile.row + vector.row)) for vector in tile.vectors}
        for j, accumulators in enumerate(acc):
            filter_ = T.Bind(self.order[g * self.kernel.group + j])
            channel = T.Cast("int64", filter_)
            first = T.Bind(self.image_out + channel * target.channel)
            add = None
            if residual is not None:
                place = tile.row * residual.line + (tile.column[0] + tile.column[1])
                add = T.Bind(self.image_add + channel * residual.channel + place)
            for a, vector in zip(accumulators, tile.vectors, strict=True):
                self._store(filter_, first + rows[vector.row], add, tile, vector, a)

    def _zeros(self, begin: Any, end: Any, row: Any) -> None:
        """The zeros around the outputs of the filters of groups [begin, end) in the rows of a block."""
        kernel = self.kernel
        with T.serial(begin * kernel.group, end * kernel.group) as n:
            filter_ = T.Bind(self.order[n])

            def zeros() -> None:
                channel = T.Bind(self.image_out + T.Cast("int64", filter_) * kernel.target.channel)
                self.writer.zeros(channel, row, T.Bind(row + self.schedule.rows))

            self._unless_padding(filter_, zeros)

    def _prefetch(self, start: Any, step: Any) -> None:
        """Fetches the part of the next block whose turn it is: entries come in no order that hardware foresees."""
        steps = sum(run.rows * run.columns for run in self.tiles) * self.kernel.groups * self.kernel.parts
        size = LINE * 4 // self.precision.bytes
        lines = -(-self.schedule.rows * self.down * self.kernel.source.line // (size * steps))
        first = T.Bind(start + step * (lines * size))
        with T.serial(0, lines) as line:
            prefetch(self.data, first + T.Cast("int64", line) * size)

    def _accumulate(self, acc: list[list[Any]], row: Any, tile: _Tile) -> None:
        """The loops over the entries of a row of `indptr`, into accumulators [G][vectors]."""
        kernel = self.kernel
        bodies = len(kernel.bodies)
        for b, body in enumerate(kernel.bodies):
            # Bound once: LLVM would reload them in the loop, as stores might alias.
            begin = T.Bind(self.indptr[row * bodies + b])
            end = T.Bind(self.indptr[row * bodies + (b + 1)])
            anchors = self._anchors(body, tile.vectors)
            # One tap has few FMAs: several entries share loads of weights and offsets, and the branch.
            if kernel.isa.by_element and len(body) == 1:
                rounds = T.Bind((end - begin) // ENTRIES)
                with T.serial(0, rounds) as r:
                    self._entries(acc, tile, body, anchors, T.Bind(begin + r * ENTRIES), ENTRIES)
                begin = T.Bind(begin + rounds * ENTRIES)
            with T.serial(begin, end) as e:
                self._entries(acc, tile, body, anchors, e, 1)

    def _entries(
        self, acc: list[list[Any]], tile: _Tile, body: tuple[int, ...], anchors: _Anchors, first: Any, count: int
    ) -> None:
        """Adds `count` entries from `first`."""
        taps, group = len(body), self.kernel.group
        # 64-bit, so that taps fold into the addresses of the loads.
        origins = [T.Bind(T.Cast("int64", self.offsets[first + n]) + tile.source) for n in range(count)]
        weight = self._weights(T.Bind(T.Cast("int64", first) * (taps * group)), count * taps * group)
        for n, origin in enumerate(origins):
            if group == 1:
                self._by_input(acc[0], tile.vectors, body, anchors, origin, lambda k, m, n=n: weight(n * taps + k, m))
                continue
            for k, tap in enumerate(body):
                number = (n * taps + k) * group
                self._by_tap(acc, tile.vectors, tap, anchors, origin, lambda j, m, number=number: weight(number + j, m))

    def _anchors(self, body: tuple[int, ...], vectors: tuple[Vector, ...]) -> _Anchors:
        """For each tap and row of a tile an address near its first vector: its value, and the same hidden."""
        lanes = self.kernel.isa.lanes(self.precision.arithmetic)[0]
        width = max(vector.column + vector.lanes for vector in vectors) * self.across
        hidden: dict[int, Any] = {0: T.int64(0)}
        starts = {tap + self._row(vector) for tap in body for vector in vectors}
        if self.kernel.isa.paired == 1:
            return dict.fromkeys(starts, (0, hidden[0]))
        anchors = {}
        for start in sorted(starts):
            near = [at for at in hidden if (start - at) % lanes == 0 and start - at + width <= PAIR_REACH * lanes]
            at = max(near, default=start)
            if at not in hidden:
                hidden[at] = T.Bind(self._hidden(T.int64(at)))
            anchors[start] = (at, hidden[at])
        return anchors

    def _hidden(self, offset: Any) -> Any:
        """The int64 `offset` in a form that LLVM cannot fold into addresses.

        Where loads reach only multiples of a vector and come in pairs, LLVM then keeps each address in a register and
        pairs the loads behind it. Otherwise it addresses every load from one register, and most of them take an
        addition and come alone.
        """
        # What LLVM does not know: indptr begins with 0.
        return offset if self.kernel.isa.paired == 1 else T.shift_left(offset, T.Cast("int64", self.indptr[0]))

    def _row(self, vector: Vector) -> int:
        """Distance of the vector's row of inputs from that of the tile."""
        return vector.row * self.down * self.kernel.source.line

    def _load(self, start: Any, lanes: int) -> Any:
        return T.Bind(load_strided(self.data, start, self.across, lanes))

    def _by_input(
        self, acc: list[Any], vectors: tuple[Vector, ...], body: tuple[int, ...], anchors: _Anchors, origin: Any,
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
        self, acc: list[list[Any]], vectors: tuple[Vector, ...], tap: int, anchors: _Anchors, origin: Any,
        weight: _WeightAt,
    ) -> None:  # fmt: skip
        """acc[j][i] += weight(j) * data[origin + tap + i] for one tap."""
        group = self.kernel.group

        def load(vector: Vector) -> Any:
            start = tap + self._row(vector)
            at, address = anchors[start]
            return self._load(origin + address + (start - at + vector.column * self.across), vector.lanes)

        # Of weights and inputs, the fewer stay in registers while the others stream by.
        if len(vectors) < group and not self.kernel.isa.by_element:
            xs = [load(vector) for vector in vectors]
            for j in range(group):
                for a, x, vector in zip(acc[j], xs, vectors, strict=True):
                    _fma(a, weight(j, vector.lanes), x, vector.lanes)
        else:
            for i, vector in enumerate(vectors):
                x = load(vector)
                for j in range(group):
                    _fma(acc[j][i], weight(j, vector.lanes), x, vector.lanes)

    def _weights(self, base: Any, count: int) -> _WeightAt:
        """Access to the `count` weights of an entry, each broadcast to a vector of some lanes."""
        isa, computed = self.kernel.isa, self.precision.arithmetic
        widths, converted = isa.lanes(computed), self.precision.weights != computed
        # Vectors of weights come together where FMA multiplies by one lane, or where they are converted.
        sizes = sorted({widths[0] if isa.by_element else 4, 4}, reverse=True)
        together = set(widths) if isa.by_element or converted else set()
        # Each is loaded when it is first needed: all at once would take registers from the accumulators.
        loaded: dict[tuple[int, int], Any] = {}

        def once(n: int, lanes: int, value: Callable[[], Any]) -> Any:
            if (n, lanes) not in loaded:
                loaded[n, lanes] = T.Bind(value())
            return loaded[n, lanes]

        def weight(n: int, lanes: int) -> Any:
            if lanes in together:
                for size in sizes:
                    first = n // size * size
                    if first + size <= count:
                        at = ramp(base + first, size)
                        vector = once(first, 0, lambda at=at: weights(self.values[at], computed, isa))
                        return broadcast(lane(vector, n - first), lanes)
            return once(n, lanes, lambda: weights(broadcast(self.values[base + n], lanes), computed, isa))

        return weight

    def _store(self, filter_: Any, row: Any, add: Any, tile: _Tile, vector: Vector, acc: Any) -> None:
        """Finishes a vector of outputs of one filter and stores it, unless the lane of the group pads it.

        `row` is where the vector's row begins in the output, `add` where the tile begins in the residual.
        """
        residual, value = self.kernel.residual, acc[ramp(0, vector.lanes)]
        # What runs over the end of a row may fall on its zeros, which are written afterwards.
        whole = residual is None and vector.lanes - vector.valid <= self.writer.overrun()

        def store() -> None:
            lanes, starts = pieces(vector.lanes if whole else vector.valid, vector.lanes)
            for start in starts:
                bias = None if self.bias is None else broadcast(self.bias[filter_], lanes)
                outputs = value if lanes == vector.lanes else part(value, start, lanes)
                other = None
                if residual is not None and self.residual is not None:
                    place = vector.row * residual.line + vector.column + start
                    other = self.residual[ramp(add + place, lanes)]
                outputs = finish(self.workload.epilogue, outputs, lanes, bias, other)
                column, fixed = tile.column
                stored = T.Bind(cast(outputs, self.precision.activations))
                self.writer.store(row, column, fixed + vector.column + start, stored, lanes)

        self._unless_padding(filter_, store)

    def _unless_padding(self, filter_: Any, act: Callable[[], None]) -> None:
        if self.kernel.padded_groups:
            with T.If(filter_ >= 0), T.Then():
                act()
        else:
            act()


def _fma(acc: Any, weight: Any, x: Any, lanes: int) -> None:
    T.buffer_store(acc, acc[ramp(0, lanes)] + weight * x, [ramp(0, lanes)])


def _zero(acc: list[list[Any]]) -> None:
    for a in chain.from_iterable(acc):
        T.buffer_store(a, number(0, str(a.dtype), _lanes(a)), [ramp(0, _lanes(a))])


def _lanes(acc: Any) -> int:
    return int(acc.shape[0])
