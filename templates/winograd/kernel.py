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

from contextlib import AbstractContextManager
from dataclasses import dataclass

from pconvgen.templates.layout.store import PlaneWriter, tensor_shape
from pconvgen.templates.winograd.grid import TileGrid
from pconvgen.templates.winograd.input import InputTransform
from pconvgen.templates.winograd.output import OutputTransform
from pconvgen.templates.winograd.product import Product
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, prim_func
from pconvgen.values.isa import Isa
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

TASKS = 8
"""Blocks that are enough for threads to share; of fewer, threads share the work in each."""


@dataclass(frozen=True)
class WinogradKernel:
    """One instance of the template.

    Attributes
    ----------
    workload: a 3x3 convolution with stride 1, dilation 1 and one group.
    schedule, isa: how it is computed, and for which instruction set.
    source: where the input lies, with its zeros around the rows of its main plane: rows [-top, height + bottom) and
        columns [-left, width + right) are read, nothing else.
    target: where the output lies.
    residual: where the tensor lies that is added; None when there is none.
    slots: first channels of input, output and residual among those of their layouts.
    """

    workload: ConvWorkload
    schedule: WinogradSchedule
    isa: Isa
    source: PlaneLayout
    target: PlaneLayout
    residual: PlaneLayout | None
    slots: tuple[int, int, int]

    @property
    def grid(self) -> TileGrid:
        """The tiles."""
        return TileGrid(self.workload, self.schedule)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data float32 [batch, source.size], weights float32 (winograd_product.pack_weight), then
        bias float32 [out_channels] and residual when the epilogue has them, then the output. Plain layouts have the
        shape NCHW.
        """
        w, grid = self.workload, self.grid
        with prim_func("winograd", flat=True) as func:
            data = T.arg("data", T.buffer(tensor_shape(self.source, w.batch), "float32"))
            size = grid.points**2 * grid.groups * w.in_channels * self.schedule.filters
            weights = T.arg("weights", T.buffer((size,), "float32"))
            bias = T.arg("bias", T.buffer((w.out_channels,), "float32")) if w.epilogue.bias else None
            residual = None
            if self.residual is not None:
                residual = T.arg("residual", T.buffer(tensor_shape(self.residual, w.batch), "float32"))
            output = T.arg("output", T.buffer(tensor_shape(self.target, w.batch), "float32"))

            def flat(buffer: Buffer, layout: PlaneLayout) -> Buffer:
                return T.decl_buffer((w.batch * layout.size,), "float32", data=buffer.data)

            sources, outputs = flat(data, self.source), flat(output, self.target)
            added = None if self.residual is None else flat(residual, self.residual)
            writer = PlaneWriter(self.target, outputs, self.isa.lanes(w.precision.arithmetic)[0])
            tasks = w.batch * grid.blocks
            shared = tasks >= TASKS
            with T.parallel(0, tasks) if shared else T.serial(0, tasks) as task:
                image = T.Bind(T.Cast("int64", task // grid.blocks))
                block = T.Bind(T.Cast("int64", task % grid.blocks))
                first = T.Bind(T.min(block * self.schedule.rows, T.int64(grid.height - self.schedule.rows)))
                inputs = T.alloc_buffer((grid.points**2 * grid.inputs,), "float32")
                products = T.alloc_buffer((grid.points**2 * grid.products,), "float32")
                parts = 1 if shared else TASKS
                transform = InputTransform(grid, self.source.row_stride, sources, inputs)
                with _loop(min(parts, w.in_channels)) as part:
                    rows = transform.scratch()
                    with _share(part, w.in_channels, min(parts, w.in_channels)) as c:
                        channel = T.Cast("int64", c) + self.slots[0]
                        begin = T.Bind(image * self.source.size + channel * self.source.channel + self.source.main)
                        transform.channel(rows, T.Bind(T.Cast("int64", c)), begin, first)
                product = Product(grid, self.isa, weights, inputs, products)
                with T.serial(0, grid.points**2) if shared else T.parallel(0, grid.points**2) as p:
                    product.point(T.Bind(T.Cast("int64", p)))
                last = OutputTransform(grid, writer, products, bias, self.residual, added)
                with T.serial(0, w.out_channels) if shared else T.parallel(0, w.out_channels) as f:
                    number = T.Bind(T.Cast("int64", f))
                    target = T.Bind(image * self.target.size + (number + self.slots[1]) * self.target.channel)
                    other = None
                    if self.residual is not None:
                        channel = (number + self.slots[2]) * self.residual.channel
                        other = T.Bind(image * self.residual.size + channel + self.residual.main)
                    last.filter(number, target, other, first)
        return func()


def _loop(parts: int) -> AbstractContextManager[Expr]:
    return T.parallel(0, parts) if parts > 1 else T.serial(0, 1)


def _share(part: Expr, count: int, parts: int) -> AbstractContextManager[Expr]:
    """The loop over the part-th of `parts` equal shares of `count`."""
    return T.serial(T.Bind(part * count // parts), T.Bind((part + 1) * count // parts))
