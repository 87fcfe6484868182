"""Moving axes: the last axis of the input becomes another axis of the output.

    for part in parallel(...):                                   # the axes that are neither of the two, and tiles
        for tile of the two axes:
            vectors of the input's rows -> registers -> vectors of the output's rows

A tile is transposed in registers by shuffles. Where rows are shorter than a vector and follow each other in memory, as
in pixel shuffles and with three channels last, they are interleaved or taken apart instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, deinterleave, interleave, prim_func, ramp, shuffle

SHORT = 8
"""Most elements of rows that are interleaved."""


@dataclass(frozen=True)
class TransposeKernel:
    """One instance: data float32 of `shape` -> output float32 with its axes in another order.

    Attributes
    ----------
    shape: of the input.
    axes: which axis of the input each axis of the output is.
    lanes: float32 lanes of a vector.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    lanes: int

    @property
    def output(self) -> tuple[int, ...]:
        """The output's shape."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def moves_last(self) -> bool:
        """Whether the last axis moves, which is what there is code for; otherwise rows are copied as they are."""
        _, axes = self._merged()
        return bool(axes) and axes[-1] != len(axes) - 1

    def _merged(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The same as (shape, axes) of fewer axes: without those of one element, neighbours that stay so as one."""
        runs: list[list[int]] = []
        for axis in self.axes:
            if self.shape[axis] == 1:
                continue
            last = runs[-1][-1] if runs else axis
            if last < axis and math.prod(self.shape[last + 1 : axis]) == 1:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        ordered = sorted(runs)
        return tuple(math.prod(self.shape[axis] for axis in run) for run in ordered), tuple(map(ordered.index, runs))

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (data, output)."""
        shape, axes = self._merged()
        output = [shape[axis] for axis in axes]
        # Of each axis of the output: elements from one to the next in the input, and in the output.
        read = [math.prod(shape[axis + 1 :]) for axis in axes]
        written = [math.prod(output[axis + 1 :]) for axis in range(len(output))]
        across, along = axes.index(len(shape) - 1), len(output) - 1
        outer = [axis for axis in range(len(output)) if axis not in (across, along)]
        with prim_func("transpose") as func:
            data = T.arg("data", T.buffer(self.shape, "float32"))
            result = T.arg("output", T.buffer(self.output, "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("transpose"):
                T.reads(data[tuple(slice(0, size) for size in self.shape)])
                T.writes(result[tuple(slice(0, size) for size in self.output)])
                source = T.decl_buffer((math.prod(shape),), "float32", data=data.data)
                target = T.decl_buffer((math.prod(output),), "float32", data=result.data)
                tile = _Tile(source, target, output[across], output[along], read[along], written[across], self.lanes)
                with T.parallel(0, math.prod(output[axis] for axis in outer) * tile.strips) as part:
                    # 32 bits, as processors of 32 bits divide them without a library.
                    rest = T.Cast("int32", part)
                    strip, rest = T.Bind(rest % T.int32(tile.strips)), T.Bind(rest // T.int32(tile.strips))
                    first, out = T.int64(0), T.int64(0)
                    for axis in reversed(outer):
                        size = T.int32(output[axis])
                        place, rest = T.Bind(T.Cast("int64", rest % size)), T.Bind(rest // size)
                        first, out = first + place * read[axis], out + place * written[axis]
                    tile.emit(T.Bind(T.Cast("int64", strip)), T.Bind(first), T.Bind(out))
        return func()


@dataclass(frozen=True, eq=False)
class _Tile:
    """Two axes: `width` elements that follow each other in the source, `height` that do in the target.

    `pitch` is the distance of the height's elements in the source, `spread` that of the width's in the target.
    """

    source: Buffer
    target: Buffer
    width: int
    height: int
    pitch: int
    spread: int
    lanes: int

    @property
    def size(self) -> int:
        """Vectors of a tile, and elements of a vector: a power of two."""
        return 1 << min(self.lanes, self.width, self.height).bit_length() - 1

    @property
    def interleaved(self) -> bool:
        """Whether a few rows of the source become one run of the target."""
        return self.height == self.spread <= SHORT and self.width >= self.lanes

    @property
    def apart(self) -> bool:
        """Whether one run of the source becomes a few rows of the target."""
        return self.width == self.pitch <= SHORT and self.height >= self.lanes

    @property
    def strips(self) -> int:
        """Parts that threads can share: tiles of the width."""
        return 1 if self.interleaved or self.apart else -(-self.width // self.size)

    def emit(self, strip: Expr, first: Expr, out: Expr) -> None:
        """One strip, from elements `first` of the source and `out` of the target."""
        if self.interleaved:
            for_each_piece(self.width, self.lanes, lambda x, lanes: self._interleave(first, out, x, lanes))
        elif self.apart:
            for_each_piece(self.height, self.lanes, lambda y, lanes: self._take_apart(first, out, y, lanes))
        else:
            x = T.Bind(T.min(strip * self.size, self.width - self.size))
            corner, place = T.Bind(first + x), T.Bind(out + x * self.spread)
            for_each_piece(self.height, self.size, lambda y, lanes: self._transpose(corner, place, y, lanes))

    def _interleave(self, first: Expr, out: Expr, x: Expr, lanes: int) -> None:
        rows = [T.Bind(self.source[ramp(first + (x + y * self.pitch), lanes)]) for y in range(self.height)]
        T.buffer_store(self.target, interleave(rows, lanes), [ramp(out + x * self.height, lanes * self.height)])

    def _take_apart(self, first: Expr, out: Expr, y: Expr, lanes: int) -> None:
        begin = T.Bind(first + y * self.width)
        parts = [T.Bind(self.source[ramp(begin + part * lanes, lanes)]) for part in range(self.width)]
        for x, row in enumerate(deinterleave(parts, lanes)):
            T.buffer_store(self.target, row, [ramp(out + (y + x * self.spread), lanes)])

    def _transpose(self, first: Expr, out: Expr, y: Expr, lanes: int) -> None:
        begin = T.Bind(first + y * self.pitch)
        rows = [T.Bind(self.source[ramp(begin + row * self.pitch, lanes)]) for row in range(lanes)]
        half = lanes // 2
        low = [element for pair in zip(range(half), range(lanes, lanes + half), strict=True) for element in pair]
        high = [element + half for element in low]
        # Each step brings elements that were `half` rows apart next to each other.
        for _ in range(lanes.bit_length() - 1):
            pairs = [[rows[row], rows[row + half]] for row in range(half)]
            rows = [T.Bind(shuffle(pair, picks)) for pair in pairs for picks in (low, high)]
        for column, row in enumerate(rows):
            T.buffer_store(self.target, row, [ramp(out + (y + column * self.spread), lanes)])
