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
                    tail = layout.lead + w.in_channels * layout.channel
                    _zero(target, image + tail, layout.size - tail, lanes)
                with T.parallel(0, w.batch * w.in_channels) as c:
                    plane_in = T.Bind(T.Cast("int64", c) * (w.height * w.width))
                    plane_out = T.Bind(
                        T.Cast("int64", c // w.in_channels) * layout.size
                        + (T.Cast("int64", c % w.in_channels) * layout.channel + layout.lead)
                    )
                    for index, phase in enumerate(layout.phases):
                        self._pack_plane(source, target, plane_in, plane_out + index * layout.plane, phase)
        return func()

    def _pack_plane(self, source: Any, target: Any, base_in: Any, base_out: Any, phase: tuple[int, int]) -> None:
        layout, lanes, w = self.layout, self.lanes, self.layout.workload
        (p, q), (sh, sw), (top, left) = phase, w.stride, w.padding[:2]
        (r0, r1), (c0, c1) = layout.real_rows(p), layout.real_columns(q)
        if r1 <= r0 or c1 <= c0:
            _zero(target, base_out, layout.plane, lanes)
            return
        first = (r0 * sh + p - top) * w.width + c0 * sw + q - left
        # Everything from the start to the first real element, then row + the gap to the next row, then the rest.
        _zero(target, base_out, r0 * layout.pitch + c0, lanes)
        with T.serial(0, r1 - r0) as y:
            row = T.Bind(T.Cast("int64", y))
            src = T.Bind(base_in + row * (sh * w.width) + first)
            dst = T.Bind(base_out + row * layout.pitch + (r0 * layout.pitch + c0))

            def copy(x: Any, width: int, src: Any = src, dst: Any = dst) -> None:
                T.buffer_store(target, load_strided(source, src + x * sw, sw, width), [ramp(dst + x, width)])

            for_each_piece(c1 - c0, lanes, copy)
            _zero(target, dst + (c1 - c0), layout.pitch - (c1 - c0), lanes)
        written = r1 * layout.pitch + c0
        _zero(target, base_out + written, layout.plane - written, lanes)


def _zero(target: Any, start: Any, count: int, lanes: int) -> None:
    """Stores `count` zeros from `start`."""

    def store(x: Any, width: int) -> None:
        T.buffer_store(target, broadcast(T.float32(0), width), [ramp(start + x, width)])

    if count > 0:
        for_each_piece(count, lanes, store)
