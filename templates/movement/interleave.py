"""Interleaving: the phases of a transposed convolution are put into their places in the output.

    for row in parallel(images x channels x rows):
        output[row][y * stride + e - shift] = phases[e][row's phase and line][y]       for the column phases e

A vector of each column phase is loaded, and a shuffle makes one run of outputs of them. Outputs before the first and
behind the last place of a whole run are copied one by one: fewer than two strides per row.
"""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.templates.layout.tiles import for_each_piece
from pconvgen.tvm_compat.tir import Buffer, Expr, PrimFunc, T, interleave, prim_func, ramp


@dataclass(frozen=True)
class InterleaveKernel:
    """One instance: phases float32 [batch, groups * rows * columns * channels, height, width] -> output float32 NCHW.

    Phase (p, q) of the stride holds the outputs [y * rows + p - shift[0]][x * columns + q - shift[1]].

    Attributes
    ----------
    batch: images.
    groups, channels: convolution groups, and output channels of each.
    stride: phases (rows, columns).
    source: (height, width) of a phase.
    shift: outputs (rows, columns) that are cut off in front.
    output: (height, width) of the output.
    lanes: float32 lanes of a vector.
    """

    batch: int
    groups: int
    channels: int
    stride: tuple[int, int]
    source: tuple[int, int]
    shift: tuple[int, int]
    output: tuple[int, int]
    lanes: int

    def build(self) -> PrimFunc:
        """The kernel as a TIR function with arguments (phases, output)."""
        (sh, sw), (height, width), (out_height, out_width) = self.stride, self.source, self.output
        planes = self.batch * self.groups * self.channels
        shape_in = (self.batch, self.groups * sh * sw * self.channels, height, width)
        shape_out = (self.batch, self.groups * self.channels, out_height, out_width)
        with prim_func("interleave") as func:
            phases = T.arg("phases", T.buffer(shape_in, "float32"))
            output = T.arg("output", T.buffer(shape_out, "float32"))
            # Relax takes a function of one tensor without a block for a reshape.
            with T.sblock("interleave"):
                T.reads(phases[tuple(slice(0, size) for size in shape_in)])
                T.writes(output[tuple(slice(0, size) for size in shape_out)])
                source = T.decl_buffer((planes * sh * sw * height * width,), "float32", data=phases.data)
                target = T.decl_buffer((planes * out_height * out_width,), "float32", data=output.data)
                with T.parallel(0, planes * out_height) as row:
                    plane = T.Bind(row // out_height)
                    place = T.Bind(row % out_height + self.shift[0])
                    block = (plane // self.channels * sh + place % sh) * (sw * self.channels) + plane % self.channels
                    line = T.Bind((T.Cast("int64", block) * height + T.Cast("int64", place // sh)) * width)
                    self._line(source, target, line, T.Bind(T.Cast("int64", row) * out_width))
        return func()

    def _line(self, source: Buffer, target: Buffer, line: Expr, out: Expr) -> None:
        """One row of outputs from `out`; the first column phase's row begins at `line`."""
        columns, shift, width = self.stride[1], self.shift[1], self.output[1]
        phase = self.channels * self.source[0] * self.source[1]
        begin = -(-shift // columns)
        end = max(begin, (width + shift) // columns)
        first, last = begin * columns - shift, end * columns - shift

        def run(x: Expr, lanes: int) -> None:
            parts = [T.Bind(source[ramp(line + x + (begin + q * phase), lanes)]) for q in range(columns)]
            at = T.Bind(out + x * columns + first)
            T.buffer_store(target, interleave(parts, lanes), [ramp(at, lanes * columns)])

        if end > begin:
            for_each_piece(end - begin, self.lanes, run)
        for x in (*range(min(first, width)), *range(last, width)):
            place, q = divmod(x + shift, columns)
            T.buffer_store(target, source[line + (q * phase + place)], [out + x])
