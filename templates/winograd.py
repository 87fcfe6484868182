"""Dense 3x3 convolution with stride 1 by Winograd's minimal filtering: F(2x2, 3x3) and F(4x4, 3x3).

Tiles of m x m outputs need (m + 2)^2 multiplications for a channel and filter instead of 9 m^2: 2.25 times fewer for
m = 2, 4 times for m = 4. What remains are additions, once for each channel and once for each filter of a tile:

    for block of some rows of tiles:
        for channel: transform the input        -> scratch [points][channels][tiles]     (winograd_input.py)
        for point:   weights x tiles            -> scratch [points][filters][tiles]      (winograd_product.py)
        for filter:  transform the products, epilogue, store                             (winograd_output.py)

Threads share the blocks, or, when there are few, the channels, points and filters of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import WinogradSchedule
from pconvgen.templates.planes import PlaneLayout, min_pitch, plane_layout
from pconvgen.templates.winograd_grid import TileGrid, View
from pconvgen.templates.winograd_input import InputTransform
from pconvgen.templates.winograd_output import OutputTransform
from pconvgen.templates.winograd_product import Product
from pconvgen.tvm_compat import PrimFunc, T, prim_func
from pconvgen.workload import ConvWorkload

TASKS = 8
"""Blocks that are enough for threads to share; of fewer, threads share the work in each."""


@dataclass(frozen=True)
class WinogradKernel:
    """One instance of the template.

    Attributes
    ----------
    workload: a 3x3 convolution with stride 1, dilation 1 and one group.
    schedule, isa: how it is computed, and for which instruction set.
    source: the input, whose zero padding is in memory around every plane: rows [-top, height + bottom) and columns
        [-left, width + right) are read, nothing else.
    target: the output; exactly its elements are written. A residual lies like it.
    """

    workload: ConvWorkload
    schedule: WinogradSchedule
    isa: Isa
    source: View
    target: View

    @property
    def grid(self) -> TileGrid:
        """The tiles."""
        return TileGrid(self.workload, self.schedule)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data float32 [batch, source.size], weights float32 (winograd_product.pack_weight), then
        bias float32 [out_channels] and residual float32 [batch, target.size] when the epilogue has them, then the
        output, like the residual. What lies as NCHW does has its shape.
        """
        w, grid = self.workload, self.grid
        with prim_func("winograd") as func:
            data_shape = _shape(self.source, w.batch, w.in_channels, w.height, w.width)
            out_shape = _shape(self.target, w.batch, w.out_channels, w.out_height, w.out_width)
            data = T.arg("data", T.buffer(data_shape, "float32"))
            size = grid.points**2 * grid.groups * w.in_channels * self.schedule.filters
            weights = T.arg("weights", T.buffer((size,), "float32"))
            bias = T.arg("bias", T.buffer((w.out_channels,), "float32")) if w.epilogue.bias else None
            residual = T.arg("residual", T.buffer(out_shape, "float32")) if w.epilogue.residual else None
            output = T.arg("output", T.buffer(out_shape, "float32"))

            def flat(buffer: Any, view: View) -> Any:
                return None if buffer is None else T.decl_buffer((w.batch * view.size,), "float32", data=buffer.data)

            sources, added = flat(data, self.source), flat(residual, self.target)
            outputs = flat(output, self.target)
            tasks = w.batch * grid.blocks
            shared = tasks >= TASKS
            with T.parallel(0, tasks) if shared else T.serial(0, tasks) as task:
                image = T.Bind(T.Cast("int64", task // grid.blocks))
                block = T.Bind(T.Cast("int64", task % grid.blocks))
                first = T.Bind(T.min(block * self.schedule.rows, T.int64(grid.height - self.schedule.rows)))
                inputs = T.alloc_buffer((grid.points**2 * grid.inputs,), "float32")
                products = T.alloc_buffer((grid.points**2 * grid.products,), "float32")
                parts = 1 if shared else TASKS
                transform = InputTransform(grid, self.source, sources, inputs)
                with _loop(min(parts, w.in_channels)) as part:
                    rows = transform.scratch()
                    with _share(part, w.in_channels, min(parts, w.in_channels)) as c:
                        transform.channel(rows, T.Bind(T.Cast("int64", c)), T.Bind(image * self.source.size), first)
                product = Product(grid, self.isa, weights, inputs, products)
                with T.serial(0, grid.points**2) if shared else T.parallel(0, grid.points**2) as p:
                    product.point(T.Bind(T.Cast("int64", p)))
                last = OutputTransform(grid, self.target, products, outputs, bias, added)
                with T.serial(0, w.out_channels) if shared else T.parallel(0, w.out_channels) as f:
                    last.filter(T.Bind(T.Cast("int64", f)), T.Bind(image * self.target.size), first)
        return func()


def planes_read(workload: ConvWorkload) -> tuple[PlaneLayout, View]:
    """The layout that packing makes for the template, and the same as a view."""
    layout = plane_layout(
        workload, block=workload.out_height, pitch=min_pitch(workload), align=1, own_columns=False, slack=0
    )
    top, left = workload.padding[:2]
    return layout, View(layout.lead + top * layout.pitch + left, layout.channel, layout.pitch, layout.size)


def nchw(channels: int, height: int, width: int) -> View:
    """An image without padding."""
    return View(0, height * width, width, channels * height * width)


def _shape(view: View, batch: int, *chw: int) -> tuple[int, ...]:
    return (batch, *chw) if view == nchw(*chw) else (batch, view.size)


def _loop(parts: int) -> Any:
    return T.parallel(0, parts) if parts > 1 else T.serial(0, 1)


def _share(part: Any, count: int, parts: int) -> Any:
    """The loop over the part-th of `parts` equal shares of `count`."""
    return T.serial(T.Bind(part * count // parts), T.Bind((part + 1) * count // parts))
