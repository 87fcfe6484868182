"""Elementwise arithmetic between layouts: gates of squeeze-and-excite, batch norm in front of a convolution, sums.

output[c][y][x] = activation(data[c][y][x] * scale[c] + shift[c] + other[c][y][x])
"""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.templates.activations import activate
from pconvgen.templates.layout.store import PlaneWriter, column_of, tensor_shape
from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, cast, prim_func, ramp
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.workload import Activation


@dataclass(frozen=True)
class PointwiseKernel:
    """One instance: data [batch, source.size] -> output [batch, target.size].

    Attributes
    ----------
    batch: images.
    channels: of each image.
    source: where the data lies; its `main` plane is read.
    other: where the tensor lies that is added, None for none.
    target: where the output lies.
    slots: first channels of data, other and output among those of their layouts.
    scale: rows of the factors, float32 [rows, channels]: one for each image, one for all, or 0 for no factors.
    shift: whether numbers float32 [channels] are added.
    activation: of the sum, None for nothing.
    lanes: of a vector.
    dtype: of data, other and output.
    computed: the format of the arithmetic.
    """

    batch: int
    channels: int
    source: PlaneLayout
    other: PlaneLayout | None
    target: PlaneLayout
    slots: tuple[int, int, int]
    scale: int
    shift: bool
    activation: Activation | None
    lanes: int
    dtype: str = "float32"
    computed: str = "float32"

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, [scale], [shift], [other], output)."""
        source, target, other = self.source, self.target, self.other
        with prim_func("pointwise") as func:
            shapes = [tensor_shape(layout, self.batch) for layout in (source, target)]
            data = T.arg("data", T.buffer(shapes[0], self.dtype))
            scale = T.arg("scale", T.buffer((self.scale, self.channels), "float32")) if self.scale else None
            shift = T.arg("shift", T.buffer((self.channels,), "float32")) if self.shift else None
            added = None if other is None else T.arg("other", T.buffer(tensor_shape(other, self.batch), self.dtype))
            output = T.arg("output", T.buffer(shapes[1], self.dtype))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("pointwise"):
                T.reads(data[tuple(slice(0, size) for size in shapes[0])])
                T.writes(output[tuple(slice(0, size) for size in shapes[1])])
                flat_in = T.decl_buffer((self.batch * source.size,), self.dtype, data=data.data)
                flat_out = T.decl_buffer((self.batch * target.size,), self.dtype, data=output.data)
                flat_add = None
                if other is not None and added is not None:
                    flat_add = T.decl_buffer((self.batch * other.size,), self.dtype, data=added.data)
                writer = PlaneWriter(target, flat_out, self.lanes)
                with T.parallel(0, self.batch * self.channels) as task:
                    c = T.Bind(T.Cast("int64", task % self.channels))
                    n = T.Bind(T.Cast("int64", task // self.channels))
                    reads = [
                        (
                            flat,
                            T.Bind(n * layout.size + (c + slot) * layout.channel + (layout.main or 0)),
                            layout.row_stride,
                        )
                        for flat, layout, slot in ((flat_in, source, self.slots[0]), (flat_add, other, self.slots[1]))
                        if flat is not None and layout is not None
                    ]
                    channel = T.Bind(n * target.size + (c + self.slots[2]) * target.channel)
                    factor = None if scale is None else T.Bind(scale[n if self.scale > 1 else 0, c])
                    addend = None if shift is None else T.Bind(shift[c])
                    self._plane(writer, reads, channel, factor, addend)
                    writer.zeros(channel, T.int64(0), T.int64(target.height))
        return func()

    def _plane(
        self,
        writer: PlaneWriter,
        reads: list[tuple[Buffer, Expr, int]],
        channel: Expr,
        factor: Expr | None,
        addend: Expr | None,
    ) -> None:
        """One channel of one image; `reads` are (flat buffer, offset of the first element, distance of rows)."""
        height, width = self.target.height, self.target.width
        if self.target.stride == (1, 1) and {self.target.row_stride, *(line for *_, line in reads)} == {width}:
            # Rows without gaps are one row.
            height, width = 1, height * width
        with T.serial(0, height) as y:
            row = T.Bind(T.Cast("int64", y))
            place = T.Bind(channel + writer.row(row))
            starts = [(flat, T.Bind(first + row * line)) for flat, first, line in reads]

            def piece(x: Expr, lanes: int) -> None:
                value, *added = (cast(flat[ramp(first + x, lanes)], self.computed) for flat, first in starts)
                if factor is not None:
                    value = value * broadcast(factor, lanes)
                if addend is not None:
                    value = value + broadcast(addend, lanes)
                for other in added:
                    value = value + other
                if self.activation is not None:
                    value = activate(self.activation, T.Bind(value), lanes)
                writer.store(place, *column_of(x), T.Bind(cast(value, self.dtype)), lanes)

            for_each_piece(width, self.lanes, piece)
