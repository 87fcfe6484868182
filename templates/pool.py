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
is one window is reduced as one run of numbers (GlobalPoolKernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pconvgen.templates.tiles import for_each_piece
from pconvgen.tvm_compat import PrimFunc, T, broadcast, deinterleave, load_strided, prim_func, ramp, shuffle

PARTS = 32
"""Parts of equal work for threads; each has a scratch buffer of its own."""
SCRATCH = 2048
"""Elements of scratch rows that are reduced before their windows are: far enough apart that stores have landed."""
UNROLLED = 8
"""Elements of a window's row or column that are unrolled; more of them get a loop."""
SUMS = 4
"""Accumulators of a global pool, to hide the latency of adding."""


@dataclass(frozen=True)
class PoolKernel:
    """One instance: data float32 NCHW -> output float32 NCHW.

    Attributes
    ----------
    kind: max, or avg: a weighted sum of the window, see `build`.
    planes: images times channels.
    size: (height, width) of the input.
    output: (height, width) of the output.
    kernel, stride, dilation: of the windows, (rows, columns).
    padding: (top, left); what lies beside the input is never larger than a maximum, and adds nothing to a sum.
    lanes: float32 lanes of a vector.
    """

    kind: str
    planes: int
    size: tuple[int, int]
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    lanes: int

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

        Arguments, in order: data [planes, height, width]; for avg the factors of the sums, row_scale float32 [output
        height] and column_scale float32 [output width]; then the output [planes, height, width].
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
            shape_in, shape_out = (k.planes, *k.size), (k.planes, *k.output)
            data = T.arg("data", T.buffer(shape_in, "float32"))
            self.row_scale = self.column_scale = None
            if k.kind == "avg":
                self.row_scale = T.arg("row_scale", T.buffer((k.output[0],), "float32"))
                self.column_scale = T.arg("column_scale", T.buffer((k.output[1],), "float32"))
            output = T.arg("output", T.buffer(shape_out, "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("pool"):
                T.reads(data[tuple(slice(0, size) for size in shape_in)])
                T.writes(output[tuple(slice(0, size) for size in shape_out)])
                self.data = T.decl_buffer((k.planes * k.size[0] * k.size[1],), "float32", data=data.data)
                self.output = T.decl_buffer((k.planes * k.output[0] * k.output[1],), "float32", data=output.data)
                total = k.planes * self.blocks
                parts = min(total, PARTS)
                with T.parallel(0, parts) as part:
                    begin = T.Bind(T.Cast("int64", part) * total // parts)
                    end = T.Bind((T.Cast("int64", part) + 1) * total // parts)
                    # Vectors that hold columns of all remainders by the stride end up to that much behind the last one.
                    if not self.apart:
                        self.scratch = T.alloc_buffer((k.rows * k.pitch + k.stride[1] - 1,), "float32")
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
                    for_each_piece(count, k.lanes, lambda x, lanes, row=row: self._fill(row + x, lanes))

    def _fill(self, at: Any, lanes: int) -> None:
        T.buffer_store(self.scratch, _nothing(self.kernel.kind, lanes), [ramp(at, lanes)])

    def _block(self, plane: Any, block: Any) -> None:
        k = self.kernel
        row = T.Bind(T.min(block * k.rows, k.output[0] - k.rows))
        if self.apart:
            with T.serial(0, k.rows) as y:
                self._row(plane, T.Bind(row + y))
            return
        if self.read:
            with T.serial(0, k.rows) as y:
                self._rows(plane, T.Bind(row + y), T.Bind(T.Cast("int64", y) * k.pitch + k.padding[1]))
        with T.serial(0, k.rows) as y:
            self._columns(plane, T.Bind(row + y), T.Bind(T.Cast("int64", y) * k.pitch))

    def _rows(self, plane: Any, row: Any, scratch: Any) -> None:
        """Reduces the rows of the windows of one row of outputs to a scratch row."""

        def reduce(load: Callable[[Any, int], Any]) -> None:
            def piece(x: Any, lanes: int) -> None:
                T.buffer_store(self.scratch, load(x, lanes), [ramp(scratch + x, lanes)])

            for_each_piece(self.read, self.kernel.lanes, piece)

        self._reduced_rows(plane, row, reduce)

    def _row(self, plane: Any, row: Any) -> None:
        """Reduces the windows of one row of outputs in registers."""
        k = self.kernel
        stride = k.stride[1]
        store = self._output_row(plane, row)

        def reduce(load: Callable[[Any, int], Any]) -> None:
            def piece(x: Any, lanes: int) -> None:
                first = T.Bind(x * stride)
                parts = [T.Bind(load(first + at, lanes)) for at in range(0, stride * lanes, lanes)]
                columns = deinterleave(parts, lanes)
                store(x, lanes, _together(k.kind, (columns[c * k.dilation[1]] for c in range(k.kernel[1]))))

            for_each_piece(k.output[1], k.lanes, piece)

        self._reduced_rows(plane, row, reduce)

    def _reduced_rows(self, plane: Any, row: Any, use: Callable[[Callable[[Any, int], Any]], None]) -> None:
        """Calls `use` with load(x, lanes): columns of the input from x on, reduced over the rows of the windows."""
        k = self.kernel
        (height, width), rate = k.size, k.dilation[0]
        # Row 0 of the windows, which may lie above the input, and the rows that do not lie beside it.
        origin = T.Bind(row * k.stride[0] - k.padding[0])
        begin = T.Bind((T.max(-origin, 0) + (rate - 1)) // rate)
        end = T.Bind(T.min((T.max(height - origin, 0) + (rate - 1)) // rate, k.kernel[0]))
        line = T.Bind((plane * height + origin) * width)

        def reduce(begin: Any, end: Any) -> None:
            def load(x: Any, lanes: int) -> Any:
                return _reduced(
                    k.kind, begin, end, lambda r: self.data[ramp(line + r * (rate * width) + x, lanes)], lanes
                )

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

    def _columns(self, plane: Any, row: Any, scratch: Any) -> None:
        """Reduces a scratch row to a row of outputs."""
        k = self.kernel
        store = self._output_row(plane, row)

        def piece(x: Any, lanes: int) -> None:
            store(x, lanes, self._window(scratch + x * k.stride[1], lanes))

        for_each_piece(k.output[1], k.lanes, piece)

    def _output_row(self, plane: Any, row: Any) -> Callable[[Any, int, Any], None]:
        """What scales and stores a vector of reduced windows from column x on: store(x, lanes, value)."""
        k = self.kernel
        out = T.Bind((plane * k.output[0] + row) * k.output[1])
        scale = None if self.row_scale is None else T.Bind(self.row_scale[row])

        def store(x: Any, lanes: int, value: Any) -> None:
            if scale is not None:
                value = value * self.column_scale[ramp(x, lanes)] * broadcast(scale, lanes)
            T.buffer_store(self.output, value, [ramp(out + x, lanes)])

        return store

    def _window(self, first: Any, lanes: int) -> Any:
        """The reduced columns of `lanes` windows, of which the first begins at `first`."""
        k = self.kernel
        stride, rate, count = k.stride[1], k.dilation[1], k.kernel[1]
        if max(stride, count) > UNROLLED:

            def load(c: Any) -> Any:
                return load_strided(self.scratch, first + c * rate, stride, lanes)

            return _reduced(k.kind, 0, count, load, lanes)
        # Columns whose places differ by less than the stride come from the same vectors.
        groups: dict[int, list[Any]] = {}
        for c in range(count):
            begin = c * rate // stride * stride
            if begin not in groups:
                places = range(begin, begin + stride * lanes, lanes)
                groups[begin] = deinterleave([T.Bind(self.scratch[ramp(first + at, lanes)]) for at in places], lanes)
        return _together(k.kind, (groups[c * rate // stride * stride][c * rate % stride] for c in range(count)))


@dataclass(frozen=True)
class GlobalPoolKernel:
    """One instance: data float32 [planes, pixels] -> output float32 [planes].

    Attributes
    ----------
    kind: max or avg.
    planes: images times channels.
    pixels: numbers of a plane.
    lanes: float32 lanes of a vector.
    """

    kind: str
    planes: int
    pixels: int
    lanes: int

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, output)."""
        with prim_func("globalpool") as func:
            data = T.arg("data", T.buffer((self.planes, self.pixels), "float32"))
            output = T.arg("output", T.buffer((self.planes,), "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("globalpool"):
                T.reads(data[0 : self.planes, 0 : self.pixels])
                T.writes(output[0 : self.planes])
                flat = T.decl_buffer((self.planes * self.pixels,), "float32", data=data.data)
                with T.parallel(0, self.planes) as plane:
                    value = self._plane(flat, T.Bind(T.Cast("int64", plane) * self.pixels))
                    scaled = value / T.float32(self.pixels) if self.kind == "avg" else value
                    T.buffer_store(output, scaled, [plane])
        return func()

    def _plane(self, data: Any, first: Any) -> Any:
        """The reduction of the numbers from `first` on."""
        whole = self.pixels // self.lanes
        sums = [T.alloc_buffer((self.lanes,), "float32") for _ in range(min(SUMS, whole))]
        at = ramp(0, self.lanes)
        for number, total in enumerate(sums):
            T.buffer_store(total, data[ramp(first + number * self.lanes, self.lanes)], [at])
        rounds = whole // SUMS
        if rounds > 1:
            with T.serial(0, rounds - 1) as i:
                begin = T.Bind(first + (T.Cast("int64", i) + 1) * (SUMS * self.lanes))
                for number, total in enumerate(sums):
                    value = data[ramp(begin + number * self.lanes, self.lanes)]
                    T.buffer_store(total, _combined(self.kind, total[at], value), [at])
        parts = [total[at] for total in sums]
        done = max(rounds, 1) * SUMS if rounds else len(sums)
        parts += [data[ramp(first + v * self.lanes, self.lanes)] for v in range(done, whole)]
        numbers = [self._across(_together(self.kind, iter(parts)), self.lanes)] if parts else []
        # The rest in vectors of half as many lanes each.
        begin, lanes = whole * self.lanes, self.lanes
        while begin < self.pixels:
            lanes //= 2
            if self.pixels - begin >= lanes:
                numbers.append(self._across(data[ramp(first + begin, lanes)], lanes))
                begin += lanes
        return _together(self.kind, iter(numbers))

    def _across(self, vector: Any, lanes: int) -> Any:
        """The reduction of a vector's lanes."""
        while lanes > 1:
            vector = T.Bind(vector)
            lanes //= 2
            vector = _combined(self.kind, shuffle([vector], range(lanes)), shuffle([vector], range(lanes, 2 * lanes)))
        return T.Bind(vector)


def _nothing(kind: str, lanes: int) -> Any:
    """What changes no reduction."""
    return broadcast(T.float32(0 if kind == "avg" else float("-inf")), lanes)


def _combined(kind: str, left: Any, right: Any) -> Any:
    return left + right if kind == "avg" else T.max(left, right)


def _together(kind: str, values: Iterator[Any]) -> Any:
    result = next(values)
    for value in values:
        result = _combined(kind, result, value)
    return result


def _reduced(kind: str, begin: Any, end: Any, load: Callable[[Any], Any], lanes: int) -> Any:
    """load(begin), ..., load(end - 1) together; a few of a number that is known are unrolled."""
    if isinstance(end, int) and end - begin <= UNROLLED:
        return _together(kind, map(load, range(begin, end)))
    total = T.alloc_buffer((lanes,), "float32")
    at = ramp(0, lanes)
    T.buffer_store(total, _nothing(kind, lanes), [at])
    with T.serial(begin, end) as i:
        T.buffer_store(total, _combined(kind, total[at], load(T.Bind(T.Cast("int64", i)))), [at])
    return total[at]
