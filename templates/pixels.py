"""Direct sparse convolution, vectors along pixels: the template of every convolution.

For each group of G filters the accumulators of a tile of pixels stay in registers while the group's entries go by:

    for task in parallel(images x row blocks x chunks of groups):
        for group in chunk:
            for tile in row block:
                acc[G][vectors] = 0
                for body in bodies:                       # patterns, or just one
                    for entry in indptr[group, body]:
                        for k, tap in enumerate(body):    # unrolled
                            acc[j][i] += values[entry, k, j] * input[offset[entry] + tap + i]
                epilogue, store

The pixels of a row block are one run of addresses with distance `pitch` between rows (templates/planes.py), so vectors
cross rows. When the pitch is the output's width they are stored as they are; otherwise they go through a scratch
tile, which stays in cache, and rows are stored without the columns between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import PixelSchedule
from pconvgen.templates.epilogue import finish
from pconvgen.templates.planes import PlaneLayout, plane_layout
from pconvgen.templates.tiles import TileRun, cut, for_each_piece
from pconvgen.tvm_compat import PrimFunc, T, broadcast, lane, prim_func, ramp
from pconvgen.workload import ConvWorkload

PAIR_REACH = 64
"""Vectors behind an address that paired loads reach (the immediate of AArch64's ldp has 7 bits, with sign): half of
them lie between an address and its last tap, the others in the tile."""

ENTRIES = 4
"""Entries of one tap that a round of the loop adds, where weights are loaded as vectors."""


@dataclass(frozen=True)
class PixelKernel:
    """One instance of the template: everything that its code depends on.

    Attributes
    ----------
    workload, schedule, isa: what is computed, how, and for which instruction set.
    group: filters per group, G.
    groups: number of groups.
    bodies: tap offsets of each body in elements of the input layout.
    padded_groups: whether some lane of some group computes no filter.
    chunks: parts of nearly equal work into which the groups are divided for threads.
    """

    workload: ConvWorkload
    schedule: PixelSchedule
    isa: Isa
    group: int
    groups: int
    bodies: tuple[tuple[int, ...], ...]
    padded_groups: bool
    chunks: int

    @property
    def layout(self) -> PlaneLayout:
        """The layout in which the input is read."""
        return pixel_layout(self.workload, self.schedule)

    @property
    def in_place(self) -> bool:
        """Whether output rows follow each other without a gap, so that vectors are stored directly."""
        return self.schedule.pitch == self.workload.out_width

    @property
    def row_blocks(self) -> int:
        """Row blocks of an image; the last one overlaps the one before it when rows do not divide."""
        return -(-self.workload.out_height // self.schedule.rows)

    def build(self) -> PrimFunc:
        """The kernel as a TIR function.

        Arguments, in order: data float32 [batch, layout.size] (or NCHW when `layout.identity`), offsets int32
        [entries], values float32 [entries * K * G], indptr int32 [groups * bodies + 1], order int32 [groups * G],
        chunks int32 [chunks + 1], then bias float32 [out_channels] and residual (NCHW) when the epilogue has them,
        then the output, NCHW. `entries` is symbolic: layers of equal shape and schedule share their code.
        """
        return _Emitter(self).function()


def block_tiles(workload: ConvWorkload, schedule: PixelSchedule) -> tuple[TileRun, ...]:
    """The register tiles of a row block: from its first to its last output, columns between rows included."""
    length = (schedule.rows - 1) * schedule.pitch + workload.out_width
    # Vectors must not run past the end of a tensor that has no slack: an input that is not packed, or the output.
    clamp = schedule.pitch == workload.out_width or pixel_layout(workload, schedule).identity
    return cut(length, schedule.lanes, schedule.vectors, clamp=clamp)


def pixel_layout(workload: ConvWorkload, schedule: PixelSchedule) -> PlaneLayout:
    """The input layout that the schedule asks for; vectors may run past the last pixel by one tile at most."""
    slack = schedule.lanes if schedule.align == 1 else 2 * schedule.lanes
    return plane_layout(workload, pitch=schedule.pitch, align=schedule.align, slack=slack)


class _Emitter:
    """Emits one kernel. Methods append to the function that is open; attributes are its buffers."""

    def __init__(self, kernel: PixelKernel) -> None:
        self.kernel, self.workload, self.schedule = kernel, kernel.workload, kernel.schedule
        self.layout, self.tiles = kernel.layout, block_tiles(kernel.workload, kernel.schedule)
        w, layout = self.workload, self.layout
        self.image_in = w.in_channels * w.height * w.width if layout.identity else layout.size
        self.plane_out = w.out_height * w.out_width
        self.covered = max(run.first + run.count * run.step for run in self.tiles)

    def function(self) -> PrimFunc:
        kernel, w = self.kernel, self.workload
        with prim_func("pixels") as func:
            self._arguments()
            tasks = w.batch * kernel.row_blocks * kernel.chunks
            with T.parallel(0, tasks) if tasks > 1 else T.serial(0, 1) as task:
                chunk = T.Bind(task % kernel.chunks)
                block = T.Bind(task // kernel.chunks % kernel.row_blocks)
                image = T.Bind(T.Cast("int64", task // (kernel.chunks * kernel.row_blocks)))
                row = T.Bind(T.Cast("int64", T.min(block * self.schedule.rows, w.out_height - self.schedule.rows)))
                scratch = None if kernel.in_place else T.alloc_buffer((kernel.group * self.covered,), "float32")
                with T.serial(self.chunks[chunk], self.chunks[chunk + 1]) as g:
                    self._group(g, image, row, scratch)
        return func()

    def _arguments(self) -> None:
        kernel, w, layout = self.kernel, self.workload, self.layout
        bodies, taps = len(kernel.bodies), len(kernel.bodies[0])
        entries = T.int64()
        data_shape = (w.batch, w.in_channels, w.height, w.width) if layout.identity else (w.batch, layout.size)
        out_shape = (w.batch, w.out_channels, w.out_height, w.out_width)
        data = T.arg("data", T.buffer(data_shape, "float32"))
        self.offsets = T.arg("offsets", T.buffer((entries,), "int32"))
        self.values = T.arg("values", T.buffer((entries * (taps * kernel.group),), "float32"))
        self.indptr = T.arg("indptr", T.buffer((kernel.groups * bodies + 1,), "int32"))
        self.order = T.arg("order", T.buffer((kernel.groups * kernel.group,), "int32"))
        self.chunks = T.arg("chunks", T.buffer((kernel.chunks + 1,), "int32"))
        self.bias = T.arg("bias", T.buffer((w.out_channels,), "float32")) if w.epilogue.bias else None
        residual = T.arg("residual", T.buffer(out_shape, "float32")) if w.epilogue.residual else None
        output = T.arg("output", T.buffer(out_shape, "float32"))
        out_size = w.batch * w.out_channels * self.plane_out
        self.data = T.decl_buffer((w.batch * self.image_in,), "float32", data=data.data)
        self.output = T.decl_buffer((out_size,), "float32", data=output.data)
        self.residual = None if residual is None else T.decl_buffer((out_size,), "float32", data=residual.data)

    def _group(self, g: Any, image: Any, row: Any, scratch: Any) -> None:
        """All outputs of one group of filters in one row block."""
        kernel, w, s = self.kernel, self.workload, self.schedule
        lanes_of_group = range(kernel.group)
        filters = [T.Bind(self.order[g * kernel.group + j]) for j in lanes_of_group]
        first_out = [
            T.Bind((image * w.out_channels + T.Cast("int64", f)) * self.plane_out + row * w.out_width) for f in filters
        ]
        in_base = T.Bind(image * self.image_in + row * s.pitch)
        for run in self.tiles:
            with T.serial(0, run.count) as t:
                pixel = T.Bind(T.Cast("int64", t) * run.step + run.first)
                acc = self._accumulate(run, g, T.Bind(in_base + self._hidden(pixel)))
                for j in lanes_of_group:
                    for a, start in zip(acc[j], run.starts, strict=True):
                        value = a[ramp(0, s.lanes)]
                        if scratch is None:
                            self._store(filters[j], first_out[j] + pixel + start, s.lanes, value)
                        else:
                            T.buffer_store(scratch, value, [ramp(pixel + (j * self.covered + start), s.lanes)])
        if scratch is None:
            return
        for j in lanes_of_group:
            with T.serial(0, s.rows) as y:
                source = T.Bind(T.Cast("int64", y) * s.pitch + j * self.covered)
                target = T.Bind(T.Cast("int64", y) * w.out_width + first_out[j])

                def copy(x: Any, lanes: int, f: Any = filters[j], source: Any = source, target: Any = target) -> None:
                    self._store(f, target + x, lanes, scratch[ramp(source + x, lanes)])

                for_each_piece(w.out_width, s.lanes, copy)

    def _accumulate(self, run: TileRun, g: Any, base: Any) -> list[list[Any]]:
        """The loops over a group's entries; returns the accumulators [G][vectors].

        Each accumulator is a buffer of its own: LLVM keeps small ones in registers, TVM puts large ones on the heap.
        """
        kernel, lanes = self.kernel, self.schedule.lanes
        group, bodies = kernel.group, len(kernel.bodies)
        acc = [[T.alloc_buffer((lanes,), "float32") for _ in run.starts] for _ in range(group)]
        for a in (a for row in acc for a in row):
            T.buffer_store(a, broadcast(T.float32(0), lanes), [ramp(0, lanes)])
        for b, body in enumerate(kernel.bodies):
            # Bound once: LLVM would reload them in the loop, as stores might alias.
            begin = T.Bind(self.indptr[g * bodies + b])
            end = T.Bind(self.indptr[g * bodies + (b + 1)])
            anchors = self._anchors(body)
            # One tap has few FMAs: several entries share loads of weights and offsets, and the branch.
            several = ENTRIES if kernel.isa.by_element and len(body) == 1 else 1
            rounds = T.Bind((end - begin) // several)
            if several > 1:
                with T.serial(0, rounds) as r:
                    self._entries(acc, run, body, anchors, T.Bind(begin + r * several), several, base)
            with T.serial(begin + rounds * several if several > 1 else begin, end) as e:
                self._entries(acc, run, body, anchors, e, 1, base)
        return acc

    def _entries(
        self, acc: list[list[Any]], run: TileRun, body: tuple[int, ...], anchors: list[tuple[int, Any]], first: Any,
        count: int, base: Any,
    ) -> None:  # fmt: skip
        """Adds `count` entries from `first`."""
        taps, group = len(body), self.kernel.group
        # 64-bit, so that taps fold into the addresses of the loads.
        origins = [T.Bind(T.Cast("int64", self.offsets[first + n]) + base) for n in range(count)]
        weight = self._weights(T.Bind(T.Cast("int64", first) * (taps * group)), count * taps * group)
        for n, origin in enumerate(origins):
            if group == 1 and self.kernel.isa.by_element:
                self._by_input(acc[0], run, body, anchors, origin, lambda k, n=n: weight(n * taps + k))
                continue
            for k, (tap, (at, address)) in enumerate(zip(body, anchors, strict=True)):
                number = (n * taps + k) * group
                self._tap(acc, run, origin + address + (tap - at), lambda j, number=number: weight(number + j))

    def _anchors(self, body: tuple[int, ...]) -> list[tuple[int, Any]]:
        """For each tap of a body an address near it: its value, and the same hidden."""
        lanes = self.kernel.isa.widths[0].lanes
        hidden: dict[int, Any] = {0: T.int64(0)}
        if self.kernel.isa.paired == 1:
            return [(0, hidden[0])] * len(body)
        anchors = []
        for tap in body:
            near = [at for at in hidden if (tap - at) % lanes == 0 and 0 <= tap - at < PAIR_REACH * lanes // 2]
            at = max(near, default=tap)
            if at not in hidden:
                hidden[at] = T.Bind(self._hidden(T.int64(at)))
            anchors.append((at, hidden[at]))
        return anchors

    def _hidden(self, offset: Any) -> Any:
        """The int64 `offset` in a form that LLVM cannot fold into addresses.

        Where loads reach only multiples of a vector and come in pairs, LLVM then keeps each address in a register and
        pairs the loads behind it. Otherwise it addresses every load from one register, and most of them take an
        addition and come alone.
        """
        # What LLVM does not know: indptr begins with 0.
        return offset if self.kernel.isa.paired == 1 else T.shift_left(offset, T.Cast("int64", self.indptr[0]))

    def _by_input(
        self, acc: list[Any], run: TileRun, body: tuple[int, ...], anchors: list[tuple[int, Any]], origin: Any,
        weight: Callable[[int], Any],
    ) -> None:  # fmt: skip
        """acc[i] += weight(k) * data[origin + body[k] + starts[i]]; an input that several taps read is loaded once."""
        lanes = self.schedule.lanes
        addresses = dict(anchors)
        uses: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for k, (tap, (at, _)) in enumerate(zip(body, anchors, strict=True)):
            for i, start in enumerate(run.starts):
                uses.setdefault((at, tap - at + start), []).append((k, i))
        for (at, offset), pairs in sorted(uses.items()):
            x = T.Bind(self.data[ramp(origin + addresses[at] + offset, lanes)])
            for k, i in pairs:
                _fma(acc[i], weight(k), x, lanes)

    def _tap(self, acc: list[list[Any]], run: TileRun, origin: Any, weight: Callable[[int], Any]) -> None:
        """acc[j][i] += weight(j) * data[origin + starts[i]] for one tap."""
        lanes, group = self.schedule.lanes, self.kernel.group

        def load(start: int) -> Any:
            return T.Bind(self.data[ramp(origin + start, lanes)])

        # Of weights and inputs, the fewer stay in registers while the others stream by.
        if len(run.starts) < group and not self.kernel.isa.by_element:
            xs = [load(start) for start in run.starts]
            for j in range(group):
                w = weight(j)
                for a, x in zip(acc[j], xs, strict=True):
                    _fma(a, w, x, lanes)
        else:
            ws = [weight(j) for j in range(group)]
            for i, start in enumerate(run.starts):
                x = load(start)
                for j, w in enumerate(ws):
                    _fma(acc[j][i], w, x, lanes)

    def _weights(self, base: Any, count: int) -> Callable[[int], Any]:
        """Access to the `count` weights of an entry, each broadcast to a vector."""
        lanes, native = self.schedule.lanes, self.kernel.isa.widths[0].lanes
        if not self.kernel.isa.by_element or lanes != native:
            return lambda n: T.Bind(broadcast(self.values[base + n], lanes))
        # Whole vectors of weights, of which FMA multiplies by one lane; a partial last one is loaded lane by lane.
        # Each is loaded when its first weight is needed: all at once would take registers from the accumulators.
        whole = count // native * native
        loaded: dict[int, Any] = {}

        def weight(n: int) -> Any:
            first = n // native * native if n < whole else n
            if first not in loaded:
                vector = self.values[ramp(base + first, native)] if n < whole else self.values[base + n]
                loaded[first] = T.Bind(vector if n < whole else broadcast(vector, lanes))
            return broadcast(lane(loaded[first], n - first), lanes) if n < whole else loaded[first]

        return weight

    def _store(self, filter_: Any, at: Any, lanes: int, value: Any) -> None:
        """Finishes a vector of outputs of one filter and stores it, unless the lane of the group pads it."""

        def store() -> None:
            bias = None if self.bias is None else broadcast(self.bias[filter_], lanes)
            result = finish(self.workload.epilogue, value, lanes, bias, self.residual, ramp(at, lanes))
            T.buffer_store(self.output, result, [ramp(at, lanes)])

        if self.kernel.padded_groups:
            with T.If(filter_ >= 0), T.Then():
                store()
        else:
            store()


def _fma(acc: Any, weight: Any, x: Any, lanes: int) -> None:
    T.buffer_store(acc, acc[ramp(0, lanes)] + weight * x, [ramp(0, lanes)])
