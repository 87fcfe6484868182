"""Pooling: the largest element or the mean of each window, vectors along pixels.

Windows are reduced in two steps, rows before columns, so that a kernel of k x k takes 2 k steps rather than k * k:

    for part in parallel(parts of the row blocks of all planes):
        for row block in part:
            for row of the block:                          # vectors as wide as the input
                scratch[row][left + x] = reduce over r: input[row * stride + r * dilation - top][x]
            for row of the block:                          # vectors as wide as the output
                output[row][x] = reduce over c: scratch[row][x * stride + c * dilation]

The padding left and right lies in the scratch rows, which stay in the first cache; rows of padding are left out.
Windows that share no columns, such as 2 x 2 with stride 2, are reduced in registers, without scratch rows. A plane that
is one window is reduced as one run of numbers (`global_pool.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pconvgen.templates.layout.store import PlaneWriter, column_of, tensor_shape
from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.templates.operators.reducing import UNROLLED, nothing, reduced, together
from pconvgen.tvm_compat.tir import Expr, PrimFunc, T, broadcast, cast, deinterleave, load_strided, prim_func, ramp
from pconvgen.values.planes import PlaneLayout

PARTS = 32
"""Parts of equal work for threads; each has a scratch buffer of its own."""
SCRATCH = 2048
"""Elements of scratch rows that are reduced before their windows are: far enough apart that stores have landed."""


@dataclass(frozen=True)
class PoolKernel:
    """One instance: data [batch, source.size] -> output [batch, target.size].

    Attributes
    ----------
    kind: max, or avg: a weighted sum of the window, see `build`.
    batch: images.
    channels: of each image.
    source, target: where input and output lie; the input is read from its `main` plane.
    slots: first channels of input and output among those of their layouts.
    kernel, stride, dilation: of the windows, (rows, columns).
    padding: (top, left); what lies beside the input is never larger than a maximum, and adds nothing to a sum.
    lanes: of a vector.
    dtype: of data and output.
    computed: the format in which windows are reduced.
    """

    kind: str
    batch: int
    channels: int
    source: PlaneLayout
    target: PlaneLayout
    slots: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    lanes: int
    dtype: str = "float32"
    computed: str = "float32"

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return self.target.height, self.target.width

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.source.height, self.source.width

    @property
    def pitch(self) -> int:
        """Elements of a scratch row: what the windows of a row of outputs read."""
        return (self.output[1] - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def rows(self) -> int:
        """Rows of outputs in a block; the last block of a plane overlaps the one before it when they do not divide."""
        blocks = -(-self.output[0] // max(1, SCRATCH // self.pitch))
        return -(-self.output[0] // blocks)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data; for avg the factors of the sums, row_scale [output height] and column_scale [output
        width]; then the output. Plain layouts have the shape NCHW.
        """
        return _Emitter(self).function()


class _Emitter:
    """Emits one kernel. Methods append to the function that is open; attributes are its buffers."""

    def __init__(self, kernel: PoolKernel) -> None:
        self.kernel = kernel
        self.blocks = -(-kernel.output[0] // kernel.rows)
        # Columns of the input that a window reads.
        self.read = max(0, min(kernel.size[1], kernel.pitch - kernel.padding[1]))
        # Windows that share no columns, in whole vectors of the input, need no scratch rows.
        inside = kernel.padding[1] == 0 and kernel.output[1] * kernel.stride[1] <= kernel.size[1]
        self.apart = inside and (kernel.kernel[1] - 1) * kernel.dilation[1] < kernel.stride[1] <= UNROLLED

    def function(self) -> PrimFunc:
        k = self.kernel
        with prim_func("pool") as func:
            shape_in, shape_out = tensor_shape(k.source, k.batch), tensor_shape(k.target, k.batch)
            data = T.arg("data", T.buffer(shape_in, k.dtype))
            self.row_scale = self.column_scale = None
            if k.kind == "avg":
                self.row_scale = T.arg("row_scale", T.buffer((k.output[0],), k.computed))
                self.column_scale = T.arg("column_scale", T.buffer((k.output[1],), k.computed))
            output = T.arg("output", T.buffer(shape_out, k.dtype))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("pool"):
                T.reads(data[tuple(slice(0, size) for size in shape_in)])
                T.writes(output[tuple(slice(0, size) for size in shape_out)])
                self.data = T.decl_buffer((k.batch * k.source.size,), k.dtype, data=data.data)
                flat = T.decl_buffer((k.batch * k.target.size,), k.dtype, data=output.data)
                self.writer = PlaneWriter(k.target, flat, k.lanes)
                total = k.batch * k.channels * self.blocks
                parts = min(total, PARTS)
                with T.parallel(0, parts) as part:
                    begin = T.Bind(T.Cast("int64", part) * total // parts)
                    end = T.Bind((T.Cast("int64", part) + 1) * total // parts)
                    # Vectors that hold columns of all remainders by the stride end up to that much behind the last one.
                    if not self.apart:
                        self.scratch = T.alloc_buffer((k.rows * k.pitch + k.stride[1] - 1,), k.computed)
                        self._pad()
                    with T.serial(begin, end) as block:
                        self._block(T.Bind(block // self.blocks), T.Bind(block % self.blocks))
        return func()

    def _pad(self) -> None:
        """Writes the padding of the scratch rows, which stays."""
        k = self.kernel
        left = min(k.padding[1], k.pitch)
        for first, count in ((0, left), (left + self.read, k.pitch - left - self.read)):
            if count > 0:
                with T.serial(0, k.rows) as y:
                    row = T.Bind(T.Cast("int64", y) * k.pitch + first)
                    for_each_piece(count, k.lanes, partial(self._fill, row))

    def _fill(self, row: Expr, x: Expr, lanes: int) -> None:
        T.buffer_store(self.scratch, nothing(self.kernel.kind, self.kernel.computed, lanes), [ramp(row + x, lanes)])

    def _block(self, plane: Expr, block: Expr) -> None:
        k = self.kernel
        row = T.Bind(T.min(block * k.rows, k.output[0] - k.rows))
        image, channel = plane // k.channels, plane % k.channels
        first = image * k.source.size + (channel + k.slots[0]) * k.source.channel
        plane = T.Bind(first + (k.source.main or 0))
        self.channel_out = T.Bind(image * k.target.size + (channel + k.slots[1]) * k.target.channel)
        self._reduce(plane, row)
        self.writer.zeros(self.channel_out, row, T.Bind(row + k.rows))

    def _reduce(self, plane: Expr, row: Expr) -> None:
        """The outputs of a block that begins with `row`, of the plane at offset `plane` of the input."""
        k = self.kernel
        if self.apart:
            with T.serial(0, k.rows) as y:
                self._row(plane, T.Bind(row + y))
            return
        if self.read:
            with T.serial(0, k.rows) as y:
                self._rows(plane, T.Bind(row + y), T.Bind(T.Cast("int64", y) * k.pitch + k.padding[1]))
        with T.serial(0, k.rows) as y:
            self._columns(T.Bind(row + y), T.Bind(T.Cast("int64", y) * k.pitch))

    def _rows(self, plane: Expr, row: Expr, scratch: Expr) -> None:
        """Reduces the rows of the windows of one row of outputs to a scratch row."""

        def reduce(load: Callable[[Expr, int], Expr]) -> None:
            def piece(x: Expr, lanes: int) -> None:
                T.buffer_store(self.scratch, load(x, lanes), [ramp(scratch + x, lanes)])

            for_each_piece(self.read, self.kernel.lanes, piece)

        self._reduced_rows(plane, row, reduce)

    def _row(self, plane: Expr, row: Expr) -> None:
        """Reduces the windows of one row of outputs in registers."""
        k = self.kernel
        stride = k.stride[1]
        store = self._output_row(row)

        def reduce(load: Callable[[Expr, int], Expr]) -> None:
            def piece(x: Expr, lanes: int) -> None:
                first = T.Bind(x * stride)
                parts = [T.Bind(load(first + at, lanes)) for at in range(0, stride * lanes, lanes)]
                columns = deinterleave(parts, lanes)
                store(x, lanes, together(k.kind, (columns[c * k.dilation[1]] for c in range(k.kernel[1]))))

            for_each_piece(k.output[1], k.lanes, piece)

        self._reduced_rows(plane, row, reduce)

    def _reduced_rows(self, plane: Expr, row: Expr, use: Callable[[Callable[[Expr, int], Expr]], None]) -> None:
        """Calls `use` with load(x, lanes): columns of the input from x on, reduced over the rows of the windows."""
        k = self.kernel
        height, rate = k.size[0], k.dilation[0]
        # Row 0 of the windows, which may lie above the input, and the rows that do not lie beside it.
        origin = T.Bind(row * k.stride[0] - k.padding[0])
        begin = T.Bind((T.max(-origin, 0) + (rate - 1)) // rate)
        end = T.Bind(T.min((T.max(height - origin, 0) + (rate - 1)) // rate, k.kernel[0]))
        line = T.Bind(plane + origin * k.source.row_stride)

        def reduce(begin: Expr, end: Expr) -> None:
            def load(x: Expr, lanes: int) -> Expr:
                def row(r: Expr) -> Expr:
                    return cast(self.data[ramp(line + r * (rate * k.source.row_stride) + x, lanes)], k.computed)

                return reduced(k.kind, k.computed, begin, end, row, lanes)

            use(load)

        last = (k.output[0] - 1) * k.stride[0] - k.padding[0] + (k.kernel[0] - 1) * rate
        if k.padding[0] == 0 and last < height:
            reduce(0, k.kernel[0])
            return
        with T.If(T.And(begin == 0, end == k.kernel[0])):
            with T.Then():
                reduce(0, k.kernel[0])
            with T.Else():
                reduce(begin, end)

    def _columns(self, row: Expr, scratch: Expr) -> None:
        """Reduces a scratch row to a row of outputs."""
        k = self.kernel
        store = self._output_row(row)

        def piece(x: Expr, lanes: int) -> None:
            store(x, lanes, self._window(scratch + x * k.stride[1], lanes))

        for_each_piece(k.output[1], k.lanes, piece)

    def _output_row(self, row: Expr) -> Callable[[Expr, int, Expr], None]:
        """What scales and stores a vector of reduced windows from column x on: store(x, lanes, value)."""
        out = T.Bind(self.channel_out + self.writer.row(row))
        scale = None if self.row_scale is None else T.Bind(self.row_scale[row])

        def store(x: Expr, lanes: int, value: Expr) -> None:
            if scale is not None and self.column_scale is not None:
                value = value * self.column_scale[ramp(x, lanes)] * broadcast(scale, lanes)
            self.writer.store(out, *column_of(x), T.Bind(cast(value, self.kernel.dtype)), lanes)

        return store

    def _window(self, first: Expr, lanes: int) -> Expr:
        """The reduced columns of `lanes` windows, of which the first begins at `first`."""
        k = self.kernel
        stride, rate, count = k.stride[1], k.dilation[1], k.kernel[1]
        if max(stride, count) > UNROLLED:

            def load(c: Expr) -> Expr:
                return load_strided(self.scratch, first + c * rate, stride, lanes)

            return reduced(k.kind, k.computed, 0, count, load, lanes)
        # Columns whose places differ by less than the stride come from the same vectors.
        groups: dict[int, list[Expr]] = {}
        for c in range(count):
            begin = c * rate // stride * stride
            if begin not in groups:
                places = range(begin, begin + stride * lanes, lanes)
                groups[begin] = deinterleave([T.Bind(self.scratch[ramp(first + at, lanes)]) for at in places], lanes)
        return together(k.kind, (groups[c * rate // stride * stride][c * rate % stride] for c in range(count)))
