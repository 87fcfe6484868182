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
from itertools import chain

from pconvgen.templates.epilogue import finish
from pconvgen.templates.layout.store import PlaneWriter, tensor_shape
from pconvgen.templates.layout.tiles import TileRun, Vector, cut, pieces
from pconvgen.templates.pixels.products import Products
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, cast, number, part, prefetch, prim_func, ramp
from pconvgen.values.isa import Isa
from pconvgen.values.planes import CACHE_LINE, PlaneLayout
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload


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
        narrow=min(isa.widths) // workload.precision.arithmetic.bits,
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
    number: Expr
    source: Expr
    row: Expr
    column: tuple[Expr, int]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Where a group keeps its sums of a tile between parts of the input channels."""

    buffer: Buffer
    part: Expr
    start: Expr

    def load(self, acc: list[list[Buffer]]) -> None:
        for a, at in self._places(acc):
            T.buffer_store(a, self.buffer[at], [ramp(0, _lanes(a))])

    def store(self, acc: list[list[Buffer]]) -> None:
        for a, at in self._places(acc):
            T.buffer_store(self.buffer, a[ramp(0, _lanes(a))], [at])

    def _places(self, acc: list[list[Buffer]]) -> Iterator[tuple[Buffer, Expr]]:
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
                first = T.Bind(image * source.size + row * (self.down * source.row_stride))
                self.image_out = T.Bind(image * target.size + kernel.slots[0] * target.channel)
                if residual is not None:
                    self.image_add = T.Bind(
                        image * residual.size + (kernel.slots[1] * residual.channel + (residual.main or 0))
                    )
                next_block = first + s.rows * self.down * source.row_stride
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
        offsets = T.arg("offsets", T.buffer((entries,), "int32"))
        values = T.arg("values", T.buffer((entries * (taps * kernel.group),), self.precision.weights))
        indptr = T.arg("indptr", T.buffer((kernel.parts * kernel.groups * bodies + 1,), "int32"))
        self.order = T.arg("order", T.buffer((kernel.groups * kernel.group,), "int32"))
        self.chunks = T.arg("chunks", T.buffer((kernel.chunks + 1,), "int32"))
        self.bias = T.arg("bias", T.buffer((w.out_channels,), computed)) if w.epilogue.bias else None
        residual = None
        if kernel.residual is not None:
            residual = T.arg("residual", T.buffer(tensor_shape(kernel.residual, w.batch), stored))
        output = T.arg("output", T.buffer(tensor_shape(kernel.target, w.batch), stored))
        self.data = T.decl_buffer((w.batch * kernel.source.size,), computed, data=data.data)
        self.residual = None
        if residual is not None and kernel.residual is not None:
            self.residual = T.decl_buffer((w.batch * kernel.residual.size,), stored, data=residual.data)
        flat = T.decl_buffer((w.batch * kernel.target.size,), stored, data=output.data)
        self.products = Products(
            w,
            kernel.isa,
            kernel.source,
            kernel.group,
            kernel.bodies,
            data=self.data,
            offsets=offsets,
            values=values,
            indptr=indptr,
        )
        self.writer = PlaneWriter(kernel.target, flat, kernel.isa.lanes(computed)[0])

    @property
    def sums(self) -> int:
        """Elements that a group needs to keep the sums of a tile, whole cache lines."""
        lanes = max(sum(vector.lanes for vector in run.vectors) for run in self.tiles)
        return -(-self.kernel.group * lanes // CACHE_LINE) * CACHE_LINE

    def _tiles(self, source: Expr, first_row: Expr) -> Iterator[_Tile]:
        """Opens the loops over the tiles of a block."""
        row_stride = self.kernel.source.row_stride
        before = 0
        for run in self.tiles:
            with T.serial(0, run.rows) as y, T.serial(0, run.columns) as x:
                number = T.Bind(T.Cast("int64", y) * run.columns + x + before)
                row = T.Cast("int64", y) * run.row_step + run.first_row
                column = T.Cast("int64", x) * run.column_step
                inputs = row * (self.down * row_stride) + (column + run.first_column) * self.across
                tile_in = T.Bind(source + self.products.hidden(inputs))
                yield _Tile(run.vectors, number, tile_in, T.Bind(first_row + row), (column, run.first_column))
            before += run.rows * run.columns

    def _group(self, g: Expr, tile: _Tile, sums: _Sums | None, next_block: Expr) -> None:
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
            self.products.add(acc, g, tile.vectors, tile.source)
            self._finish(acc, g, tile)
            return
        with T.If(sums.part == 0):
            with T.Then():
                _zero(acc)
            with T.Else():
                sums.load(acc)
        self.products.add(acc, sums.part * kernel.groups + g, tile.vectors, tile.source)
        with T.If(sums.part == kernel.parts - 1):
            with T.Then():
                self._finish(acc, g, tile)
            with T.Else():
                sums.store(acc)

    def _finish(self, acc: list[list[Buffer]], g: Expr, tile: _Tile) -> None:
        target, residual = self.kernel.target, self.kernel.residual
        rows = {vector.row: T.Bind(self.writer.row(tile.row + vector.row)) for vector in tile.vectors}
        for j, accumulators in enumerate(acc):
            filter_ = T.Bind(self.order[g * self.kernel.group + j])
            channel = T.Cast("int64", filter_)
            first = T.Bind(self.image_out + channel * target.channel)
            add = None
            if residual is not None:
                place = tile.row * residual.row_stride + (tile.column[0] + tile.column[1])
                add = T.Bind(self.image_add + channel * residual.channel + place)
            for a, vector in zip(accumulators, tile.vectors, strict=True):
                self._store(filter_, first + rows[vector.row], add, tile, vector, a)

    def _zeros(self, begin: Expr, end: Expr, row: Expr) -> None:
        """The zeros around the outputs of the filters of groups [begin, end) in the rows of a block."""
        kernel = self.kernel
        with T.serial(begin * kernel.group, end * kernel.group) as n:
            filter_ = T.Bind(self.order[n])

            def zeros() -> None:
                channel = T.Bind(self.image_out + T.Cast("int64", filter_) * kernel.target.channel)
                self.writer.zeros(channel, row, T.Bind(row + self.schedule.rows))

            self._unless_padding(filter_, zeros)

    def _prefetch(self, start: Expr, step: Expr) -> None:
        """Fetches the part of the next block whose turn it is: entries come in no order that hardware foresees."""
        steps = sum(run.rows * run.columns for run in self.tiles) * self.kernel.groups * self.kernel.parts
        size = CACHE_LINE * 4 // self.precision.bytes
        lines = -(-self.schedule.rows * self.down * self.kernel.source.row_stride // (size * steps))
        first = T.Bind(start + step * (lines * size))
        with T.serial(0, lines) as line:
            prefetch(self.data, first + T.Cast("int64", line) * size)

    def _store(self, filter_: Expr, row: Expr, add: Expr, tile: _Tile, vector: Vector, acc: Buffer) -> None:
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
                    place = vector.row * residual.row_stride + vector.column + start
                    other = self.residual[ramp(add + place, lanes)]
                outputs = finish(self.workload.epilogue, outputs, lanes, bias, other)
                column, fixed = tile.column
                stored = T.Bind(cast(outputs, self.precision.activations))
                self.writer.store(row, column, fixed + vector.column + start, stored, lanes)

        self._unless_padding(filter_, store)

    def _unless_padding(self, filter_: Expr, act: Callable[[], None]) -> None:
        if self.kernel.padded_groups:
            with T.If(filter_ >= 0), T.Then():
                act()
        else:
            act()


def _zero(acc: list[list[Buffer]]) -> None:
    for a in chain.from_iterable(acc):
        T.buffer_store(a, number(0, str(a.dtype), _lanes(a)), [ramp(0, _lanes(a))])


def _lanes(acc: Buffer) -> int:
    return int(acc.shape[0])
