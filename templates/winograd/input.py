"""Winograd's input transform: the padded planes of an image as tiles' values at the points.

For every channel and row of tiles, first along columns, vectors along the row, into scratch rows; then along rows,
whose tiles are put apart by shuffles:

    row y      a0 a1 a2 a3 b0 b1 b2 b3 c0 ...    of 6 rows, one scratch row for each of 6 points
    scratch    a0 a1 a2 a3 b0 b1 b2 b3 c0 ...    ->  d0 = a0 b0 c0 ..   d4 = b0 c0 ..  (F(4, 3): tiles a, b, c, ...
                                                     d1 = a1 b1 c1 ..   d5 = b1 c1 ..   read the first two of the next)
                                                     d2 = a2 b2 ..
                                                     d3 = a3 b3 ..
"""

from __future__ import annotations

from functools import partial

from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.templates.winograd.grid import Piece, TileGrid, for_each_run
from pconvgen.templates.winograd.transforms import TAPS, transform_input
from pconvgen.tvm_compat.tir import Buffer, Expr, T, broadcast, ramp, shuffle


class InputTransform:
    """Emits the transform of some channels of a block.

    Parameters
    ----------
    grid: the tiles.
    row_stride: distance of the rows of a plane, around which its zeros lie.
    data: flat buffer of the images.
    points: flat buffer of the result, [points^2][channels][stride].
    """

    def __init__(self, grid: TileGrid, row_stride: int, data: Buffer, points: Buffer) -> None:
        self.grid, self.row_stride, self.data, self.points = grid, row_stride, data, points
        pieces = grid.pieces()
        last, m = pieces[-1], grid.schedule.tile
        self.columns = grid.workload.out_width + TAPS - 1
        # What a vector and the first inputs of the tile behind it read.
        self.pitch = m * (last.first + last.lanes) + last.lanes
        self.pieces = pieces

    def scratch(self) -> Buffer:
        """Scratch rows of one thread; behind their columns they are zeros for good."""
        rows = T.alloc_buffer((self.grid.points * self.pitch,), "float32")
        for i in range(self.grid.points):

            def zero(x: Expr, width: int, start: int = i * self.pitch + self.columns) -> None:
                T.buffer_store(rows, broadcast(T.float32(0), width), [ramp(start + x, width)])

            for_each_piece(self.pitch - self.columns, self.grid.schedule.lanes, zero)
        return rows

    def channel(self, rows: Buffer, c: Expr, begin: Expr, first: Expr) -> None:
        """Channel `c` of the block whose first row of tiles is `first`; its first element is at `begin` in data."""
        grid, w = self.grid, self.grid.workload
        top, left = w.padding[:2]
        plane = T.Bind(begin - (top * self.row_stride + left))
        target = T.Bind(c * grid.stride)
        with T.serial(0, grid.schedule.rows) as r:
            y = T.Bind((first + T.Cast("int64", r)) * grid.schedule.tile)
            self._along_columns(rows, plane, y)
            at = T.Bind(target + T.Cast("int64", r) * grid.width)
            # Vectors reach into the next row of tiles, which comes later.
            for_each_run(grid.runs(), partial(self._along_rows, rows, at=at))
        self._zero_tail(target)

    def _along_columns(self, rows: Buffer, plane: Expr, y: Expr) -> None:
        """The scratch rows of the tiles that begin with row y of the padded plane."""
        grid = self.grid
        # Rows behind the padded plane count for outputs behind the last one only: any row will do.
        last = grid.workload.out_height + TAPS - 2
        inside = grid.workload.out_height % grid.schedule.tile == 0
        sources = [
            T.Bind(plane + (y + i if inside or i < TAPS else T.min(y + i, T.int64(last))) * self.row_stride)
            for i in range(grid.points)
        ]

        def emit(x: Expr, width: int) -> None:
            d = [T.Bind(self.data[ramp(source + x, width)]) for source in sources]
            for i, point in enumerate(transform_input(d, grid.schedule.tile, width)):
                T.buffer_store(rows, point, [ramp(i * self.pitch + x, width)])

        for_each_piece(self.columns, grid.schedule.lanes, emit)

    def _along_rows(self, rows: Buffer, piece: Piece, moved: Expr, at: Expr) -> None:
        """The points of a vector of tiles, which is moved by some, from all scratch rows."""
        grid, m, lanes = self.grid, self.grid.schedule.tile, piece.lanes
        source, target = T.Bind(moved * m), T.Bind(at + moved)
        for i in range(grid.points):
            start = i * self.pitch + m * piece.first
            loaded = [T.Bind(rows[ramp(source + (start + n * lanes), lanes)]) for n in range(m + 1)]
            d = split(loaded[:m], lanes)
            # What the next tile begins with.
            d += [T.Bind(shuffle([d[k], loaded[m]], [*range(1, lanes), lanes + k])) for k in range(TAPS - 1)]
            for j, point in enumerate(transform_input(d, m, lanes)):
                start = (i * grid.points + j) * grid.inputs + piece.first
                T.buffer_store(self.points, point, [ramp(target + start, lanes)])

    def _zero_tail(self, target: Expr) -> None:
        """Zeros for the tiles behind the last one of which products are made, if no vector has put some there."""
        grid, s = self.grid, self.grid.schedule
        last = self.pieces[-1]
        begin = grid.tiles - grid.width + last.first + last.lanes
        count = grid.vectors * s.lanes - begin
        if count <= 0:
            return
        with T.serial(0, grid.points**2) as p:
            start = T.Bind(target + T.Cast("int64", p) * grid.inputs + begin)

            def zero(x: Expr, width: int) -> None:
                T.buffer_store(self.points, broadcast(T.float32(0), width), [ramp(start + x, width)])

            for_each_piece(count, s.lanes, zero)


def split(vectors: list[Expr], lanes: int) -> list[Expr]:
    """[a0 a1 b0 b1], [c0 c1 d0 d1] -> [a0 b0 c0 d0], [a1 b1 c1 d1]; of four vectors by fours, in steps of two."""
    if len(vectors) == 1:
        return vectors
    even, odd = (
        [
            T.Bind(shuffle([low, high], range(q, 2 * lanes, 2)))
            for low, high in zip(vectors[0::2], vectors[1::2], strict=True)
        ]
        for q in (0, 1)
    )
    parts = split(even, lanes), split(odd, lanes)
    return [part for pair in zip(*parts, strict=True) for part in pair]
