"""Winograd's output transform: products at the points as outputs, with the epilogue, into the planes of an image.

The reverse of the input transform: for every filter and vector of tiles of a row, along columns and along rows, with
the tiles of a vector put together by shuffles and finished as vectors of pixels.
"""

from __future__ import annotations

from typing import Any

from pconvgen.templates.epilogue import finish
from pconvgen.templates.tiles import pieces
from pconvgen.templates.winograd_grid import Piece, TileGrid, View
from pconvgen.templates.winograd_transforms import transform_output
from pconvgen.tvm_compat import T, broadcast, part, ramp, shuffle


class OutputTransform:
    """Emits the transform of one filter of a block.

    Parameters
    ----------
    grid, view: the tiles and the output image.
    products: flat buffer [points^2][filters][stride].
    output: flat buffer of the images.
    bias: [filters] or None.
    residual: flat buffer like output, or None.
    """

    def __init__(self, grid: TileGrid, view: View, products: Any, output: Any, bias: Any, residual: Any) -> None:
        self.grid, self.view, self.products, self.output = grid, view, products, output
        self.bias, self.residual = bias, residual

    def filter(self, f: Any, image: Any, first: Any) -> None:
        """Filter `f` of the block whose first row of tiles is `first`; `image` is where the image begins in output."""
        grid, view = self.grid, self.view
        plane = T.Bind(image + f * view.channel + view.origin)
        bias = None if self.bias is None else T.Bind(self.bias[f])
        with T.serial(0, grid.schedule.rows) as r:
            y = T.Bind((first + T.Cast("int64", r)) * grid.schedule.tile)
            source = T.Bind(f * grid.stride + T.Cast("int64", r) * grid.width)
            for piece in grid.pieces():
                self._piece(piece, source, T.Bind(plane + y * view.row + piece.first * grid.schedule.tile), y, bias)

    def _piece(self, piece: Piece, source: Any, target: Any, y: Any, bias: Any) -> None:
        grid, m, lanes = self.grid, self.grid.schedule.tile, piece.lanes
        columns = []
        for j in range(grid.points):
            starts = [(i * grid.points + j) * grid.products + piece.first for i in range(grid.points)]
            points = [T.Bind(self.products[ramp(source + start, lanes)]) for start in starts]
            columns.append(transform_output(points, m, lanes))
        for i in range(m):
            row = join(transform_output([column[i] for column in columns], m, lanes), lanes)

            def store(row: list[Any] = row, i: int = i) -> None:
                for n, pixels in enumerate(row):
                    if n * lanes < piece.columns:
                        valid = min(lanes, piece.columns - n * lanes)
                        self._store(pixels, lanes, valid, T.Bind(target + (i * self.view.row + n * lanes)), bias)

            # The first output row of a tile is always one of the image.
            if i == 0 or grid.workload.out_height % m == 0:
                store()
            else:
                with T.If(y + i < grid.workload.out_height), T.Then():
                    store()

    def _store(self, pixels: Any, lanes: int, valid: int, at: Any, bias: Any) -> None:
        """Finishes and stores the first `valid` pixels of a vector."""
        width, starts = pieces(valid, lanes)
        for start in starts:
            value = pixels if width == lanes else part(pixels, start, width)
            index = ramp(at + start, width)
            added = None if bias is None else broadcast(bias, width)
            outputs = finish(self.grid.workload.epilogue, value, width, added, self.residual, index)
            T.buffer_store(self.output, outputs, [index])


def join(vectors: list[Any], lanes: int) -> list[Any]:
    """[a0 b0 c0 d0], [a1 b1 c1 d1] -> [a0 a1 b0 b1], [c0 c1 d0 d1]; of four vectors by fours, in steps of two."""
    if len(vectors) == 1:
        return vectors
    half = len(vectors) // 2
    low, high = join(vectors[0::2], lanes), join(vectors[1::2], lanes)
    joined = []
    for n in range(half):
        for start in (0, lanes // 2):
            lanes_of = [index for i in range(start, start + lanes // 2) for index in (i, lanes + i)]
            joined.append(T.Bind(shuffle([low[n], high[n]], lanes_of)))
    return joined
