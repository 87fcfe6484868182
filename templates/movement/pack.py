"""Packing: a tensor from one layout to another, its padding included.

Between generated kernels this is not needed, as each writes what its readers want; it is what happens to the
network's inputs and outputs, and around operators that nobody generates a kernel for.
"""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.templates.layout.phases import PhaseBlock, phase_blocks
from pconvgen.templates.layout.store import tensor_shape
from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, cast, load_strided, number, prim_func, ramp
from pconvgen.values.planes import PlaneLayout, plain_layout


def input_pack(batch: int, target: PlaneLayout, lanes: int) -> PackKernel | None:
    """What brings a tensor from NCHW into a layout of its own; None when that is NCHW."""
    if target.plain:
        return None
    plain = plain_layout(target.channels, target.height, target.width)
    return PackKernel(batch, plain, target, target.channels, (0, 0), lanes)


@dataclass(frozen=True)
class PackKernel:
    """One instance: data [batch, source.size] -> packed [batch, target.size], padding included.

    Attributes
    ----------
    batch: images.
    source: a layout whose `main` plane is read.
    target: the layout that is written.
    channels: how many are packed.
    slots: the first of them in source and target.
    lanes: of a vector.
    formats: of data and of what is packed; one may be float16 and the other float32.
    """

    batch: int
    source: PlaneLayout
    target: PlaneLayout
    channels: int
    slots: tuple[int, int]
    lanes: int
    formats: tuple[str, str] = ("float32", "float32")

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, packed); plain layouts have the shape NCHW."""
        source, target = self.source, self.target
        shape_in, shape_out = tensor_shape(source, self.batch), tensor_shape(target, self.batch)
        with prim_func("pack") as func:
            data = T.arg("data", T.buffer(shape_in, self.formats[0]))
            packed = T.arg("packed", T.buffer(shape_out, self.formats[1]))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("pack"):
                T.reads(data[tuple(slice(0, size) for size in shape_in)])
                T.writes(packed[tuple(slice(0, size) for size in shape_out)])
                flat_in = T.decl_buffer((self.batch * source.size,), self.formats[0], data=data.data)
                flat_out = T.decl_buffer((self.batch * target.size,), self.formats[1], data=packed.data)
                with T.parallel(0, self.batch * self.channels) as task:
                    c = T.Bind(T.Cast("int64", task % self.channels))
                    n = T.Bind(T.Cast("int64", task // self.channels))
                    read = T.Bind(n * source.size + (c + self.slots[0]) * source.channel + (source.main or 0))
                    write = T.Bind(n * target.size + (c + self.slots[1]) * target.channel + target.lead)
                    for block in phase_blocks(target):
                        self._planes(flat_in, flat_out, read, write, block)
        return func()

    def _planes(self, data: Buffer, packed: Buffer, read: Expr, write: Expr, block: PhaseBlock) -> None:
        """Planes of a channel of the target, which begins at `write`, and at `read` in the source."""
        plane, down, across = self.target.plane, block.rows, block.columns
        write = write + block.index * plane
        if len(down) * len(across) == 1:
            self._plane(data, packed, read, write, block, (down.start, across.start))
            return
        with T.serial(0, len(down)) as i, T.serial(0, len(across)) as j:
            i, j = T.Cast("int64", i), T.Cast("int64", j)
            phase = T.Bind(i * down.step + down.start), T.Bind(j * across.step + across.start)
            self._plane(data, packed, read, T.Bind(write + (i * block.row_index + j) * plane), block, phase)

    def _plane(
        self, data: Buffer, packed: Buffer, read: Expr, write: Expr, block: PhaseBlock, phase: tuple[Expr, Expr]
    ) -> None:
        """One plane of a block, which begins at `write`: that of a phase of numbers or of int64 variables."""
        source, target = self.source, self.target
        (p, q), (sh, sw), (top, left) = phase, target.stride, target.before
        (r0, r1), (c0, c1) = target.real_rows(block.rows.start), target.real_columns(block.columns.start)

        def row(r: Expr, y: Expr) -> None:
            begin = T.Bind(read + y * source.row_stride + (q + (c0 * sw - left)))
            dst = T.Bind(write + r * target.row_stride)

            def copy(x: Expr, lanes: int) -> None:
                at = ramp(dst + (x + c0), lanes)
                T.buffer_store(packed, cast(load_strided(data, begin + x * sw, sw, lanes), self.formats[1]), [at])

            self._zero(packed, dst, c0)
            if c1 > c0:
                for_each_piece(c1 - c0, self.lanes, copy)
            self._zero(packed, dst + c1, target.pitch - c1)

        for first, last in ((0, r0), (r0, r1), (r1, target.rows)):
            if last <= first:
                continue
            with T.serial(0, last - first) as i:
                r = T.Bind(T.Cast("int64", i) + first)
                if first == r0 and last == r1:
                    row(r, T.Bind(r * sh + (p - top)))
                else:
                    self._zero(packed, T.Bind(write + r * target.row_stride), target.pitch)
        if not target.interleaved:
            rows = target.rows * target.pitch
            self._zero(packed, write + rows, target.plane - rows)

    def _zero(self, packed: Buffer, start: Expr, count: int) -> None:
        """Stores `count` zeros from `start`."""

        def store(x: Expr, lanes: int) -> None:
            T.buffer_store(packed, number(0, str(packed.dtype), lanes), [ramp(start + x, lanes)])

        if count > 0:
            for_each_piece(count, self.lanes, store)
