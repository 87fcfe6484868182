"""Normalisation: (x - mean) / sqrt(variance + epsilon) of groups of channels, times a scale, plus a shift.

    for group in parallel(groups of all images):
        first = (sum of the elements) / count
        rest = (sum of (x - first)) / count                     # what rounding left of the mean
        variance = (sum of (x - first)^2) / count - rest^2      # both are small: nothing cancels
        output = activation((x - first) * factor + addend)      # factor = scale / sqrt(variance + epsilon)
                                                                # addend = shift - rest * factor
The mean of the squares less the square of the mean would lose all digits where the mean is large beside the spread.
Sums are float32 whatever the data is, in several vectors side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pconvgen.templates.activations import activate
from pconvgen.templates.layout.store import PlaneWriter, column_of, tensor_shape
from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, cast, prim_func, ramp, shuffle
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.workload import Activation

SUMS = 4
"""Vectors of sums side by side, to hide the latency of adding."""

Step = Callable[[int, Expr, int], None]
"""step(number of a vector of sums, first element, lanes)"""


@dataclass(frozen=True)
class NormKernel:
    """One instance: data [batch, source.size] -> output [batch, target.size].

    Attributes
    ----------
    batch: images.
    channels: of each image.
    groups: of channels that have a mean and a variance of their own.
    joint: whether statistics are those of all images together.
    source, target: where data and output lie; the data is read from its `main` plane.
    slots: first channels of data and output among those of their layouts.
    elements: whether scale and shift are numbers for each element of a channel (float32 [1, height * width], which all
        channels share) rather than for each channel (float32 [channels, 1]).
    epsilon: added to the variance.
    activation: of the result, None for nothing.
    lanes: of a vector of float32.
    dtype: of data and output.
    """

    batch: int
    channels: int
    groups: int
    joint: bool
    source: PlaneLayout
    target: PlaneLayout
    slots: tuple[int, int]
    elements: bool
    epsilon: float
    activation: Activation | None
    lanes: int
    dtype: str = "float32"

    @property
    def factors(self) -> tuple[int, int]:
        """Shape of scale and of shift."""
        return (1, self.source.height * self.source.width) if self.elements else (self.channels, 1)

    @property
    def count(self) -> int:
        """Elements that are normalised together."""
        images = self.batch if self.joint else 1
        return images * self.channels // self.groups * self.source.height * self.source.width

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, scale, shift, output)."""
        with prim_func("norm") as func:
            shapes = [tensor_shape(layout, self.batch) for layout in (self.source, self.target)]
            data = T.arg("data", T.buffer(shapes[0], self.dtype))
            scale = T.arg("scale", T.buffer(self.factors, "float32"))
            shift = T.arg("shift", T.buffer(self.factors, "float32"))
            output = T.arg("output", T.buffer(shapes[1], self.dtype))
            with T.sblock("norm"):
                T.reads(data[tuple(slice(0, size) for size in shapes[0])])
                T.writes(output[tuple(slice(0, size) for size in shapes[1])])
                flat_in = T.decl_buffer((self.batch * self.source.size,), self.dtype, data=data.data)
                flat_out = T.decl_buffer((self.batch * self.target.size,), self.dtype, data=output.data)
                writer = PlaneWriter(self.target, flat_out, self.lanes)
                emitter = _Emitter(self, flat_in, scale, shift, writer)
                with T.parallel(0, self.groups if self.joint else self.batch * self.groups) as task:
                    emitter.group(task)
        return func()


@dataclass(frozen=True, eq=False)
class _Emitter:
    """Emits the code of one group. The fields after the kernel are its buffers, data and output flat."""

    kernel: NormKernel
    data: Buffer
    scale: Buffer
    shift: Buffer
    writer: PlaneWriter

    @property
    def _per_group(self) -> int:
        return self.kernel.channels // self.kernel.groups

    def group(self, task: Expr) -> None:
        k = self.kernel
        channel = T.Bind(T.Cast("int64", task % k.groups) * self._per_group)
        image = T.int64(0) if k.joint else T.Bind(T.Cast("int64", task // k.groups))
        (first,) = self._means(image, channel, 1, lambda x, lanes: [x])

        def away(x: Expr, lanes: int) -> list[Expr]:
            x = T.Bind(x - broadcast(first, lanes))
            return [x, x * x]

        rest, squares = self._means(image, channel, 2, away)
        # Rounding may leave less than nothing.
        variance = T.Bind(T.max(squares - rest * rest, T.float32(0)))
        factor = T.Bind(T.float32(1) / T.sqrt(variance + T.float32(k.epsilon)))

        def store(n: Expr, c: Expr) -> None:
            self._channel(n, T.Bind(channel + c), first, rest, factor)

        self._channels(image, self._per_group, store)

    def _means(self, image: Expr, channel: Expr, number: int, values: Callable[[Expr, int], list[Expr]]) -> list[Expr]:
        """The means of `number` values that `values` makes of each vector of the group's elements."""
        k = self.kernel
        sums = [[T.alloc_buffer((k.lanes,), "float32") for _ in range(SUMS)] for _ in range(number)]
        for vector in (vector for vectors in sums for vector in vectors):
            T.buffer_store(vector, broadcast(T.float32(0), k.lanes), [ramp(0, k.lanes)])

        def step(index: int, place: Expr, lanes: int) -> None:
            at = ramp(0, lanes)
            parts = values(T.Bind(cast(self.data[ramp(place, lanes)], "float32")), lanes)
            for vectors, part in zip(sums, parts, strict=True):
                T.buffer_store(vectors[index], vectors[index][at] + part, [at])

        whole = k.source.seamless and (k.source.channel == k.source.height * k.source.width or self._per_group == 1)
        planes = 1 if whole else self._per_group
        size = self._per_group // planes * k.source.height * k.source.width

        def add(n: Expr, c: Expr) -> None:
            begin = T.Bind(self._first(n, T.Bind(channel + c)))
            if k.source.seamless:
                for_each_vector(begin, size, k.lanes, step)
                return
            with T.serial(0, k.source.height) as y:
                row = T.Bind(begin + T.Cast("int64", y) * k.source.row_stride)
                for_each_vector(row, k.source.width, k.lanes, step)

        self._channels(image, planes, add)
        count = T.float32(k.count)
        return [T.Bind(total(vectors, k.lanes) / count) for vectors in sums]

    def _channels(self, image: Expr, channels: int, body: Callable[[Expr, Expr], None]) -> None:
        """body(image, channel of the group) for the group's channels in all images that it spans."""
        k = self.kernel
        with T.serial(0, k.batch if k.joint else 1) as n, T.serial(0, channels) as c:
            body(T.Bind(T.Cast("int64", n) + image), T.Cast("int64", c))

    def _first(self, image: Expr, channel: Expr) -> Expr:
        source = self.kernel.source
        return image * source.size + (channel + self.kernel.slots[0]) * source.channel + (source.main or 0)

    def _channel(self, image: Expr, channel: Expr, first: Expr, rest: Expr, factor: Expr) -> None:
        """The results of one channel of one image."""
        k = self.kernel
        height, width = k.source.height, k.source.width
        begin = T.Bind(self._first(image, channel))
        out = T.Bind(image * k.target.size + (channel + k.slots[1]) * k.target.channel)
        if not k.elements:
            scale = T.Bind(self.scale[channel, 0] * factor)
            addend = T.Bind(self.shift[channel, 0] - rest * scale)
        if k.target.stride == (1, 1) and k.source.row_stride == k.target.row_stride == width:
            # Rows without gaps are one row.
            height, width = 1, height * width
        with T.serial(0, height) as y:
            row = T.Bind(T.Cast("int64", y))
            place, line = T.Bind(out + self.writer.row(row)), T.Bind(begin + row * k.source.row_stride)

            def piece(x: Expr, lanes: int) -> None:
                value = T.Bind(cast(self.data[ramp(line + x, lanes)], "float32") - broadcast(first, lanes))
                if k.elements:
                    at = ramp(row * width + x, lanes)
                    by = T.Bind(self.scale[0, at] * broadcast(factor, lanes))
                    value = value * by + (self.shift[0, at] - broadcast(rest, lanes) * by)
                else:
                    value = value * broadcast(scale, lanes) + broadcast(addend, lanes)
                if k.activation is not None:
                    value = activate(k.activation, T.Bind(value), lanes)
                self.writer.store(place, *column_of(x), T.Bind(cast(value, k.dtype)), lanes)

            for_each_piece(width, k.lanes, piece)
        self.writer.zeros(out, T.int64(0), T.int64(k.target.height))


def for_each_vector(first: Expr, count: int, lanes: int, step: Step) -> None:
    """Calls `step` for vectors that cover `count` elements from `first` on, each element once."""
    done = 0
    for vectors in (SUMS, 1):
        rounds = (count // lanes - done) // vectors
        if rounds:
            with T.serial(0, rounds) as i:
                begin = T.Bind(first + (T.Cast("int64", i) * vectors + done) * lanes)
                for index in range(vectors):
                    step(index, begin + index * lanes, lanes)
        done += rounds * vectors
    begin = done * lanes
    while begin < count:
        lanes //= 2
        if count - begin >= lanes:
            step(0, first + begin, lanes)
            begin += lanes


def total(vectors: list[Expr], lanes: int) -> Expr:
    """The sum of all lanes of some buffers of a vector each."""
    value = vectors[0][ramp(0, lanes)]
    for vector in vectors[1:]:
        value = value + vector[ramp(0, lanes)]
    while lanes > 1:
        lanes //= 2
        value = T.Bind(value)
        value = shuffle([value], range(lanes)) + shuffle([value], range(lanes, 2 * lanes))
    return T.Bind(value)
