"""Packing: NCHW activations into the padded, pitched planes that direct convolution reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pconvgen.templates.planes import PlaneLayout
from pconvgen.templates.tiles import for_each_piece
from pconvgen.tvm_compat import PrimFunc, T, broadcast, load_strided, prim_func, ramp


@dataclass(frozen=True)
class PackKernel:
    """One instance: data float32 NCHW -> packed float32 [batch, layout.size], padding included.

    Attributes
    ----------
    layout: the layout that is written.
    lanes: float32 lanes of a vector.
    """

    layout: PlaneLayout
    lanes: int

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, packed)."""
        layout, lanes = self.layout, self.lanes
        w = layout.workload
        shape = (w.batch, w.in_channels, w.height, w.width)
        with prim_func("pack") as func:
            data = T.arg("data", T.buffer(shape, "float32"))
            packed = T.arg("packed", T.buffer((w.batch, layout.size), "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("pack"):
                T.reads(data[0 : w.batch, 0 : w.in_channels, 0 : w.height, 0 : w.width])
                T.writes(packed[0 : w.batch, 0 : layout.size])
                source = T.decl_buffer((w.batch * w.in_channels * w.height * w.width,), "float32", data=data.data)
                target = T.decl_buffer((w.batch * layout.size,), "float32", data=packed.data)
                with T.serial(0, w.batch) as n:
                    image = T.Bind(T.Cast("int64", n) * layout.size)
                    _zero(target, image, layout.lead, lanes)
                    tail = layout.lead + layout.blocks * layout.block_size
                    _zero(target, image + tail, layout.size - tail, lanes)
                with T.parallel(0, w.batch * layout.blocks * w.in_channels) as task:
                    c = T.Bind(T.Cast("int64", task % w.in_channels))
                    block = T.Bind(T.Cast("int64", task // w.in_channels % layout.blocks))
                    n = T.Bind(T.Cast("int64", task // (w.in_channels * layout.blocks)))
                    plane_in = T.Bind((n * w.in_channels + c) * (w.height * w.width))
                    start = block * layout.block_size + c * layout.channel
                    plane_out = T.Bind(n * layout.size + start + layout.lead)
                    first_row = T.Bind(T.min(block * layout.block, w.out_height - layout.block) * w.stride[0])
                    for index, phase in enumerate(layout.phases):
                        self._pack_plane(source, target, plane_in, plane_out + index * layout.plane, first_row, phase)
        return func()

    def _pack_plane(
        self, source: Any, target: Any, base_in: Any, base_out: Any, first_row: Any, phase: tuple[int, int]
    ) -> None:
        """One plane; `first_row` is the row of the padded input that phase row 0 of the block begins with."""
        layout, lanes, w = self.layout, self.lanes, self.layout.workload
        (p, q), (sh, sw), (top, left) = phase, w.stride, w.padding[:2]
        c0, c1 = layout.real_columns(q)
        last_row = (w.out_height - layout.block + layout.rows - 1) * sh + p - top
        with T.serial(0, layout.rows) as r:
            y = T.Bind(first_row + (T.Cast("int64", r) * sh + (p - top)))
            dst = T.Bind(base_out + T.Cast("int64", r) * layout.pitch)

            def row(y: Any = y, dst: Any = dst) -> None:
                src = T.Bind(base_in + y * w.width + (c0 * sw + q - left))

                def copy(x: Any, width: int) -> None:
                    T.buffer_store(target, load_strided(source, src + x * sw, sw, width), [ramp(dst + (x + c0), width)])

                _zero(target, dst, c0, lanes)
                for_each_piece(c1 - c0, lanes, copy)
                _zero(target, dst + c1, layout.pitch - c1, lanes)

            if c1 <= c0:
                _zero(target, dst, layout.pitch, lanes)
            elif p >= top and last_row < w.height:
                row()
            else:
                with T.If(T.And(y >= 0, y < w.height)):
                    with T.Then():
                        row()
                    with T.Else():
                        _zero(target, dst, layout.pitch, lanes)
        _zero(target, base_out + layout.rows * layout.pitch, layout.plane - layout.rows * layout.pitch, lanes)


def _zero(target: Any, start: Any, count: int, lanes: int) -> None:
    """Stores `count` zeros from `start`."""

    def store(x: Any, width: int) -> None:
        T.buffer_store(target, broadcast(T.float32(0), width), [ramp(start + x, width)])

    if count > 0:
        for_each_piece(count, lanes, store)
