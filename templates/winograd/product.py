"""Winograd's products: at every point a small matrix product of weights and tiles.

for point:
    for group of filters:
        for some vectors of tiles:
            acc[G][vectors] = 0
            for channel: acc[j][i] += weight[point, group, channel, j] * input[point, channel, i]
            store
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.layout.tiles import cut
from pconvgen.templates.winograd.grid import TileGrid
from pconvgen.templates.winograd.transforms import transform_weight
from pconvgen.tvm_compat.tir import Buffer, Expr, T, broadcast, lane, prefetch, ramp
from pconvgen.values.isa import Isa

AHEAD = 16384
"""Elements by which weights, which are read once a block, are fetched ahead: hardware stops at the ends of pages."""


def pack_weight(grid: TileGrid, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """[filters, channels, 3, 3] -> [points^2 * groups * channels * G], transformed; missing filters are zeros."""
    s = grid.schedule
    points = transform_weight(weight, s.tile)
    padded = np.zeros((grid.points**2, grid.groups * s.filters, weight.shape[1]), np.float32)
    padded[:, : len(weight)] = points.reshape(grid.points**2, *points.shape[2:])
    grouped = padded.reshape(grid.points**2, grid.groups, s.filters, -1)
    return np.ascontiguousarray(grouped.swapaxes(2, 3)).reshape(-1)


class Product:
    """Emits the products of a point.

    Parameters
    ----------
    grid, isa: the tiles; decides how weights are broadcast.
    weights: flat buffer, see `pack_weight`.
    inputs, products: flat buffers [points^2][channels or filters][stride].
    """

    def __init__(self, grid: TileGrid, isa: Isa, weights: Buffer, inputs: Buffer, products: Buffer) -> None:
        self.grid, self.isa, self.weights, self.inputs, self.products = grid, isa, weights, inputs, products

    def point(self, p: Expr) -> None:
        """All products of point `p`."""
        grid, s = self.grid, self.grid.schedule
        panel = grid.workload.in_channels * s.filters
        with T.serial(0, grid.groups) as g:
            group = T.Bind(T.Cast("int64", g))
            weights = T.Bind((p * grid.groups + group) * panel)
            source = T.Bind(p * grid.inputs)
            target = T.Bind(p * grid.products + group * (s.filters * grid.stride))
            across = grid.vectors * s.lanes
            for run in cut(1, across, lanes=s.lanes, narrow=s.lanes, vectors=s.vectors, height=1, clamp=False):
                with T.serial(0, run.columns) as x:
                    tile = T.Bind(T.Cast("int64", x) * run.column_step + run.first_column)
                    self._tile(len(run.vectors), weights, T.Bind(source + tile), T.Bind(target + tile))

    def _tile(self, vectors: int, weights: Expr, source: Expr, target: Expr) -> None:
        """One register tile."""
        grid, s = self.grid, self.grid.schedule
        every = ramp(0, s.lanes)
        acc = [[T.alloc_buffer((s.lanes,), "float32") for _ in range(vectors)] for _ in range(s.filters)]
        for row in acc:
            for a in row:
                T.buffer_store(a, broadcast(T.float32(0), s.lanes), [every])
        with T.serial(0, grid.workload.in_channels) as channel:
            c = T.Bind(T.Cast("int64", channel))
            first = T.Bind(weights + c * s.filters)
            prefetch(self.weights, first + AHEAD)
            at = T.Bind(source + c * grid.stride)
            xs = [T.Bind(self.inputs[ramp(at + i * s.lanes, s.lanes)]) for i in range(vectors)]
            weight = self._weight(first)
            for j, row in enumerate(acc):
                w = weight(j)
                for a, x in zip(row, xs, strict=True):
                    T.buffer_store(a, a[every] + w * x, [every])
        for j, row in enumerate(acc):
            for i, a in enumerate(row):
                T.buffer_store(self.products, a[every], [ramp(target + (j * grid.stride + i * s.lanes), s.lanes)])

    def _weight(self, first: Expr) -> Callable[[int], Expr]:
        """A function that gives each weight of a group, broadcast, when it is wanted: all do not fit the registers."""
        s = self.grid.schedule
        if not self.isa.lane_indexed_fma:
            return lambda j: T.Bind(broadcast(self.weights[first + j], s.lanes))
        loaded = [T.Bind(self.weights[ramp(first + j, s.lanes)]) for j in range(0, s.filters, s.lanes)]
        return lambda j: broadcast(lane(loaded[j // s.lanes], j % s.lanes), s.lanes)
