"""Resizing: every output is a weighted sum of a few rows and of a few columns of one plane.

    for part in parallel(planes, or parts of the rows of few planes):
        for row of outputs in part:
            scratch[x] = sum over t: row_weight[t][row] * input[row_index[t][row]][x]            # as wide as the input
            output[row][x] = sum over t: column_weight[t][x] * scratch[columns[t][x]]            # as wide as the output

Nearest neighbours are one row and one column without weights, linear interpolation is two, cubic is four. Columns are
known when code is generated: vectors of them are shuffled out of neighbouring vectors of a scratch row, which has its
borders repeated on both sides. Where the columns of a few vectors are those of the vectors before, moved, there is a
loop of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pconvgen.templates.layout.tiles import for_each_piece, pieces
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, broadcast, prim_func, ramp, shuffle

PARTS = 8
"""Parts that planes are cut to, for threads."""
PERIOD = 8
"""Most vectors in the loop of a row."""
UNROLLED = 64
"""Vectors of a row that are unrolled where they have no period."""
SOURCES = 4
"""Vectors that the columns of one vector may be taken from."""


@dataclass(frozen=True)
class ResizeKernel:
    """One instance: data float32 NCHW -> output float32 NCHW.

    Attributes
    ----------
    planes: (images, channels).
    size: (height, width) of the input.
    output: (height, width) of the output.
    columns: for each term of the sum, the column of the input for each column of the output; outside is the border.
    lanes: float32 lanes of a vector.
    """

    planes: tuple[int, int]
    size: tuple[int, int]
    output: tuple[int, int]
    columns: tuple[tuple[int, ...], ...]
    lanes: int

    @property
    def feasible(self) -> bool:
        """Whether rows have code of a reasonable size."""
        vectors = list(self._vectors())
        near = all(max(map(max, picks)) < SOURCES * lanes for _, _, lanes, picks in vectors)
        return near and (len(vectors) <= UNROLLED or self._period(vectors) <= PERIOD)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data; row_index int32 [terms, output height]; then, with more than one term, row_weight
        float32 [terms, output height] and column_weight float32 [terms, output width]; then the output.
        """
        (height, width), (rows, columns), terms = self.size, self.output, len(self.columns)
        planes = self.planes[0] * self.planes[1]
        before, after = self._borders()
        with prim_func("resize") as func:
            data = T.arg("data", T.buffer((*self.planes, height, width), "float32"))
            index = T.arg("row_index", T.buffer((terms, rows), "int32"))
            row_weight = weights = column_weight = None
            if terms > 1:
                row_weight = T.arg("row_weight", T.buffer((terms, rows), "float32"))
                weights = T.arg("column_weight", T.buffer((terms, columns), "float32"))
            output = T.arg("output", T.buffer((*self.planes, rows, columns), "float32"))
            if weights is not None:
                column_weight = T.decl_buffer((terms * columns,), "float32", data=weights.data)
            source = T.decl_buffer((planes * height * width,), "float32", data=data.data)
            target = T.decl_buffer((planes * rows * columns,), "float32", data=output.data)
            # A power of two, so that no processor needs a division.
            parts = max(1, min(PARTS >> (planes - 1).bit_length(), 1 << rows.bit_length() - 1))
            share = -(-rows // parts)
            with T.parallel(0, planes * parts) as part:
                number = T.Bind(T.Cast("int64", part) // parts)
                begin = T.Bind(T.Cast("int64", part) % parts * share)
                # What is behind the border is loaded with the last columns, and not used.
                scratch = T.alloc_buffer((before + width + after + SOURCES * self.lanes,), "float32")
                with T.serial(0, T.max(T.min(T.int64(share), rows - begin), 0)) as line:
                    row = T.Bind(begin + T.Cast("int64", line))
                    lines = [T.Bind((number * height + T.Cast("int64", index[t, row])) * width) for t in range(terms)]
                    scales = [] if row_weight is None else [T.Bind(row_weight[t, row]) for t in range(terms)]

                    def rows_of(x: Expr, lanes: int) -> None:
                        values = [source[ramp(first + x, lanes)] for first in lines]
                        wide = [broadcast(scale, lanes) for scale in scales]
                        T.buffer_store(scratch, _weighted(values, wide), [ramp(x + before, lanes)])

                    for_each_piece(width, self.lanes, rows_of)
                    for x in range(before):
                        T.buffer_store(scratch, scratch[before], [x])
                    for x in range(after):
                        T.buffer_store(scratch, scratch[before + width - 1], [before + width + x])
                    self._row(scratch, column_weight, target, T.Bind((number * rows + row) * columns))
        return func()

    def _row(self, scratch: Buffer, weights: Buffer, target: Buffer, out: Expr) -> None:
        """One row of outputs from `out` on."""
        vectors = list(self._vectors())
        whole = self.output[1] // vectors[0][2]
        period = self._period(vectors)
        columns = self.output[1]

        def vector(number: int, moved: Expr, ahead: Expr) -> None:
            x, first, lanes, picks = vectors[number]
            needed = max(map(max, picks)) // lanes + 1
            parts = [T.Bind(scratch[ramp(ahead + (first + part * lanes), lanes)]) for part in range(needed)]
            values = [shuffle(parts, pick) if lanes > 1 else parts[pick[0]] for pick in picks]
            places = [ramp(moved + (term * columns + x), lanes) for term in range(len(picks))]
            scales = [] if weights is None else [weights[place] for place in places]
            T.buffer_store(target, _weighted(values, scales), [ramp(out + moved + x, lanes)])

        rounds = whole // period if period <= PERIOD else 0
        if rounds > 1:
            ahead = vectors[period][1] - vectors[0][1]
            with T.serial(0, rounds) as i:
                turn = T.Bind(T.Cast("int64", i))
                moved, shift = T.Bind(turn * (period * self.lanes)), T.Bind(turn * ahead)
                for number in range(period):
                    vector(number, moved, shift)
        for number in range(rounds * period if rounds > 1 else 0, len(vectors)):
            vector(number, T.int64(0), T.int64(0))

    def _borders(self) -> tuple[int, int]:
        """Columns before and behind the input that are read."""
        every = [column for columns in self.columns for column in columns]
        return max(0, -min(every)), max(0, max(every) - self.size[1] + 1)

    def _vectors(self) -> Iterator[tuple[int, int, int, tuple[tuple[int, ...], ...]]]:
        """(first output, first element of the scratch row, lanes, for each term what it picks from there on)."""
        before, _ = self._borders()
        lanes, starts = pieces(self.output[1], self.lanes)
        for x in starts:
            read = [columns[x : x + lanes] for columns in self.columns]
            first = min(map(min, read))
            yield x, first + before, lanes, tuple(tuple(column - first for column in part) for part in read)

    def _period(self, vectors: list[Expr]) -> int:
        """The number of vectors after which the columns are the same, moved."""
        whole = vectors[: self.output[1] // vectors[0][2]]
        for period in range(1, len(whole)):
            pairs = list(zip(whole, whole[period:], strict=False))
            moves = {after[1] - before[1] for before, after in pairs}
            if len(moves) == 1 and all(before[3] == after[3] for before, after in pairs):
                return period
        return len(whole)


def _weighted(values: list[Expr], scales: list[Expr]) -> Expr:
    if not scales:
        return values[0]
    total = values[0] * scales[0]
    for value, scale in zip(values[1:], scales[1:], strict=True):
        total = total + value * scale
    return total
