"""Storing tensors in planes: vectors of a row, and the zeros around the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, T, number, ramp, shuffle
from pconvgen.values.planes import PlaneLayout


@dataclass(frozen=True, eq=False)
class PlaneWriter:
    """Writes a tensor of one layout into a flat buffer of whole images.

    Vectors are stored as they are, in every plane that shows them. What lands beside a plane's elements lands on
    padding, and the zeros are written last, by whoever wrote the row: in whatever order rows are written, zeros win.

    Attributes
    ----------
    layout: a writable layout.
    buffer: flat buffer of images of `layout.size`.
    lanes: of the widest vector of zeros.
    """

    layout: PlaneLayout
    buffer: Buffer
    lanes: int

    def row(self, y: Expr) -> Expr:
        """Offset of row `y` of the tensor (int64) from the start of its channel."""
        layout = self.layout
        if layout.stride[0] == 1:
            return y * layout.row_stride
        place = T.Bind(y + layout.before[0])
        # Phases are sorted by row: those of a row of the stride lie together.
        per_row = len(layout.phases) // layout.stride[0] * layout.plane
        return T.Bind(place % layout.stride[0] * per_row + place // layout.stride[0] * layout.row_stride)

    def store(self, row: Expr, column: Expr, fixed: int, value: Expr, lanes: int) -> None:
        """Stores `lanes` elements of a row from column `column` + `fixed` on.

        Parameters
        ----------
        row: `row(y)` + the offset of the channel, with that of the image.
        column: int64, a multiple of the column stride; of rows without a gap also that of a later row.
        """
        layout = self.layout
        across = layout.stride[1]
        for index, q in enumerate(self._columns()):
            start = fixed + layout.before[1] - q
            first = -start % across
            count = -(-(lanes - first) // across)
            if count <= 0:
                continue
            part = value if across == 1 else shuffle([value], range(first, lanes, across)) if lanes > 1 else value
            place = self._origin + index * layout.plane + (start + first) // across
            at = row + (column if across == 1 else T.floordiv(column, T.int64(across))) + place
            T.buffer_store(self.buffer, part, [ramp(at, count)])

    def overrun(self) -> int:
        """Elements behind the end of a row that a vector may run over, as only zeros are there."""
        layout = self.layout
        if layout.stride != (1, 1) or layout.own_columns:
            return 0
        first, last = layout.real_columns(0)
        return layout.pitch + (0 if layout.interleaved else min(first, layout.gap)) - last

    def zeros(self, channel: Expr, begin: Expr, end: Expr) -> None:
        """Writes the zeros around rows [begin, end) of the tensor (int64), and above the first and below the last row.

        `channel` is the offset of the channel's planes, with that of the image.
        """
        layout = self.layout
        sides = [list(self._sides(q)) for q in self._columns()]
        if any(sides):
            with T.serial(begin, end) as y:
                row = T.Bind(channel + self.row(T.Bind(T.Cast("int64", y))))
                for index, spans in enumerate(sides):
                    for first, count in spans:
                        self._fill(row + (self._origin + index * layout.plane + first), count)
        outside = [
            (index, q, first, count)
            for index, (p, q) in enumerate(layout.phases)
            for first, count in self._rows_outside(p)
        ]
        for below in (False, True):
            beyond = [span for span in outside if (span[2] > 0) == below]
            if beyond:
                with T.If(end == layout.height if below else begin == 0), T.Then():
                    for index, q, first, count in beyond:
                        with T.serial(0, count) as r:
                            line = T.Bind((T.Cast("int64", r) + first) * layout.row_stride + channel)
                            _, width = self._whole(q)
                            self._fill(line + (layout.lead + index * layout.plane), width)

    @property
    def _origin(self) -> int:
        """Offset of row `row(0)` of a channel's first plane."""
        layout = self.layout
        return layout.lead + (layout.before[0] * layout.row_stride if layout.stride[0] == 1 else 0)

    def _columns(self) -> list[int]:
        """q of the planes that hold a row."""
        layout = self.layout
        return [q for p, q in layout.phases if p == layout.phases[0][0]]

    def _sides(self, q: int) -> Iterator[tuple[int, int]]:
        """(first column, columns) of the zeros before and behind a row."""
        layout = self.layout
        first, last = layout.real_columns(q)
        lowest = min(0, -((q - layout.before[1]) // layout.stride[1]))
        if first > lowest:
            yield lowest, first - lowest
        _, end = self._whole(q)
        if end > last:
            yield last, end - last

    def _whole(self, q: int) -> tuple[int, int]:
        """Columns [first, last) of a row with the zeros that it shares with the next one."""
        layout = self.layout
        return 0, layout.pitch + (0 if layout.interleaved else min(layout.real_columns(q)[0], layout.gap))

    def _rows_outside(self, p: int) -> Iterator[tuple[int, int]]:
        """(first row, rows) of the zeros above and below a plane of phase row p."""
        first, last = self.layout.real_rows(p)
        if first > 0:
            yield 0, first
        if self.layout.rows > last:
            yield last, self.layout.rows - last

    def _fill(self, start: Expr, count: int) -> None:
        def zero(x: Expr, lanes: int) -> None:
            T.buffer_store(self.buffer, number(0, str(self.buffer.dtype), lanes), [ramp(start + x, lanes)])

        for_each_piece(count, self.lanes, zero)


def tensor_shape(layout: PlaneLayout, batch: int) -> tuple[int, ...]:
    """Shape of the tensor that holds a layout: NCHW where it is plain."""
    return (batch, layout.channels, layout.height, layout.width) if layout.plain else (batch, layout.size)


def column_of(x: Expr) -> tuple[Expr, int]:
    """A column as the sum of a variable and a number, of which one is 0."""
    value = getattr(x, "value", None)
    return (x, 0) if value is None else (T.int64(0), int(value))
