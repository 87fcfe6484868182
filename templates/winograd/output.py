"""Winograd's output transform: products at the points as outputs, with the epilogue, into the planes of an image.

The reverse of the input transform: for every filter and vector of tiles of a row, along columns and along rows, with
the tiles of a vector put together by shuffles and finished as vectors of pixels.
"""

from __future__ import annotations

from functools import partial

from pconvgen.templates.epilogue import finish
from pconvgen.templates.layout.store import PlaneWriter
from pconvgen.templates.layout.tiles import pieces
from pconvgen.templates.winograd.grid import Piece, TileGrid, for_each_run
from pconvgen.templates.winograd.transforms import transform_output
from pconvgen.tvm_compat.tir import Buffer, Expr, T, broadcast, part, ramp, shuffle
from pconvgen.values.planes import PlaneLayout


class OutputTransform:
    """Emits the transform of one filter of a block.

    Parameters
    ----------
    grid: the tiles.
    writer: what stores the output.
    products: flat buffer [points^2][filters][stride].
    bias: [filters] or None.
    residual, added: layout and flat buffer of the tensor that is added, or None.
    """

    def __init__(
        self,
        grid: TileGrid,
        writer: PlaneWriter,
        products: Buffer,
        bias: Buffer | None,
        residual: PlaneLayout | None,
        added: Buffer | None,
    ) -> None:
        self.grid, self.writer, self.products = grid, writer, products
        self.bias, self.residual, self.added = bias, residual, added

    def filter(self, f: Expr, target: Expr, other: Expr | None, first: Expr) -> None:
        """Filter `f` of the block whose first row of tiles is `first`.

        `target` is where its planes begin in the output, `other` where its first element is in the residual.
        """
        grid, s = self.grid, self.grid.schedule
        bias = None if self.bias is None else T.Bind(self.bias[f])
        with T.serial(0, grid.schedule.rows) as r:
            y = T.Bind((first + T.Cast("int64", r)) * grid.schedule.tile)
            source = T.Bind(f * grid.stride + T.Cast("int64", r) * grid.width)
            vectors_of = partial(self._piece, source=source, target=target, other=other, y=y, bias=bias)
            for_each_run(grid.runs(self.writer.layout.stride[1]), vectors_of)
        end = T.min((first + s.rows) * s.tile, T.int64(grid.workload.out_height))
        self.writer.zeros(target, T.Bind(first * s.tile), T.Bind(end))

    def _piece(
        self, piece: Piece, moved: Expr, source: Expr, target: Expr, other: Expr | None, y: Expr, bias: Expr | None
    ) -> None:
        """A vector of tiles, which is moved by some."""
        grid, m, lanes = self.grid, self.grid.schedule.tile, piece.lanes
        source, right = T.Bind(source + moved), T.Bind(moved * m)
        columns = []
        for j in range(grid.points):
            starts = [(i * grid.points + j) * grid.products + piece.first for i in range(grid.points)]
            points = [T.Bind(self.products[ramp(source + start, lanes)]) for start in starts]
            columns.append(transform_output(points, m, lanes))
        for i in range(m):
            row = join(transform_output([column[i] for column in columns], m, lanes), lanes)

            def store(row: list[Expr] = row, i: int = i) -> None:
                place = T.Bind(target + self.writer.row(y + i))
                add = None
                if self.residual is not None:
                    add = T.Bind(other + (y + i) * self.residual.row_stride + right)
                for n, pixels in enumerate(row):
                    if n * lanes < piece.columns:
                        valid = min(lanes, piece.columns - n * lanes)
                        self._store(pixels, lanes, valid, place, add, right, piece.first * m + n * lanes, bias)

            # The first output row of a tile is always one of the image.
            if i == 0 or grid.workload.out_height % m == 0:
                store()
            else:
                with T.If(y + i < grid.workload.out_height), T.Then():
                    store()

    def _store(
        self,
        pixels: Expr,
        lanes: int,
        valid: int,
        row: Expr,
        add: Expr | None,
        right: Expr,
        column: int,
        bias: Expr | None,
    ) -> None:
        """Finishes and stores the first `valid` pixels of a vector from column `right` + `column` on.

        `row` is a row of the output, `add` that column `right` of a row of the residual.
        """
        width, starts = pieces(valid, lanes)
        for start in starts:
            value = pixels if width == lanes else part(pixels, start, width)
            number = None if bias is None else broadcast(bias, width)
            other = None if self.added is None or add is None else self.added[ramp(add + (column + start), width)]
            outputs = T.Bind(finish(self.grid.workload.epilogue, value, width, number, other))
            self.writer.store(row, right, column + start, outputs, width)


def join(vectors: list[Expr], lanes: int) -> list[Expr]:
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
