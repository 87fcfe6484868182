"""Choosing the layout of every activation by what its readers and writers would cost with it.

Each buffer has some layouts that are worth trying. What an operation takes is a table over those of the buffers that it
reads and writes, and the layouts are taken with which all tables together are least.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np

from pconvgen.planning.elimination import Table, least
from pconvgen.planning.tensors import Buffer, Home
from pconvgen.schedules.roofline import pack_cycles
from pconvgen.values.core import Core
from pconvgen.values.dtype import DType
from pconvgen.values.planes import PlaneLayout, plain_layout
from pconvgen.watch import step

PACKING = 2.0
"""Cycles for each element that is packed: far more than it takes, as nothing is to be packed without need."""
CALL_CYCLES = 5000.0
"""Cycles to call a kernel: channels that do not lie together are packed by several calls."""
PROPOSALS = 4
"""Layouts of a reader that are looked at together with its neighbours: its fastest ones."""
OPTIONS = 8
"""Layouts of a buffer that are looked at: those that most of its readers like."""


class BufferUser(Protocol):
    """Something that a generated kernel computes."""

    @property
    def batch(self) -> int:
        """Images that are computed, whose tensors lie one behind the other."""

    @property
    def reads(self) -> Sequence[Home | None]:
        """The homes of its inputs; None for one that is packed for it alone, from NCHW."""

    @property
    def writes(self) -> Home | None:
        """The home of its output; None for one that has no layout."""

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of its first input worth trying, with as many channels as it reads."""

    def can_read(self, number: int, source: PlaneLayout) -> bool:
        """Whether input `number` may lie so."""

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Predicted cycles; infinite when the kernel cannot read or write these."""


Layouts = dict[Buffer, PlaneLayout]


@dataclass(frozen=True, eq=False)
class NetworkLayouts:
    """The layouts of a network.

    Attributes
    ----------
    buffers: of every buffer.
    packed: of the first input of the operations that have it packed, by their number.
    """

    buffers: Layouts
    packed: dict[int, PlaneLayout]


def choose_layouts(operations: Sequence[BufferUser], fallback: set[Buffer], core: Core, dtype: DType) -> NetworkLayouts:
    """The layouts of all buffers that `operations` read and write.

    Parameters
    ----------
    operations: in program order.
    fallback: buffers that other operators read, as NCHW.
    core: that computes them.
    dtype: that it computes in.
    """
    search = _Search(operations, fallback, core, dtype)
    chosen = least([len(layouts) for layouts in search.options.values()], list(search.tables()))
    for (buffer, layouts), option in zip(search.options.items(), chosen, strict=True):
        search.layouts[buffer] = layouts[option]
    packed = {i: search.packed(i) for i in range(len(operations)) if search.is_packed(i, {})}
    return NetworkLayouts(search.layouts, packed)


class _Search:
    def __init__(self, operations: Sequence[BufferUser], fallback: set[Buffer], core: Core, dtype: DType) -> None:
        self.operations, self.fallback, self.core, self.lanes = operations, fallback, core, core.lanes(dtype)
        self.readers: dict[Buffer, list[int]] = {}
        self.writers: dict[Buffer, list[int]] = {}
        self.layouts: Layouts = {}
        self._costs: dict[Hashable, float] = {}
        self._least_packed: dict[Hashable, float] = {}
        for number, operation in enumerate(operations):
            if operation.writes is not None:
                self.writers.setdefault(operation.writes.buffer, []).append(number)
            for home in operation.reads:
                if home is not None:
                    self.readers.setdefault(home.buffer, []).append(number)
        buffers = dict.fromkeys([*self.writers, *self.readers])
        self.options: dict[Buffer, list[PlaneLayout]] = {}
        for number, buffer in enumerate(buffers, 1):
            step(f"tensor {number} of {len(buffers)}")
            self.options[buffer] = self._options(buffer)

    def _options(self, buffer: Buffer) -> list[PlaneLayout]:
        """Layouts that all readers and writers can use."""
        plain = plain_layout(buffer.channels, buffer.height, buffer.width)
        votes = Counter[PlaneLayout]()
        for number in self.readers.get(buffer, []):
            operation = self.operations[number]
            if operation.reads[0] is None or operation.reads[0].buffer is not buffer:
                continue
            proposed = [replace(layout, channels=buffer.channels) for layout in operation.proposals()]
            proposed = [layout for layout in proposed if layout.writable]
            target = None if operation.writes is None else self._plain(operation.writes.buffer)
            others = [self._plain(home.buffer) for home in operation.reads[1:] if home is not None]
            proposed.sort(key=lambda layout: operation.cycles([layout, *others], target))
            shared = [layout for layout in proposed if self._all_read(buffer, layout)]
            for favourites, weight in ((proposed, 1), (shared, len(self.operations))):
                votes.update({layout: weight * (PROPOSALS - n) for n, layout in enumerate(favourites[:PROPOSALS])})
        liked = [layout for layout, _ in votes.most_common(OPTIONS)]
        return list(dict.fromkeys([replace(plain, slack=2 * self.lanes), plain, *liked]))

    def _all_read(self, buffer: Buffer, layout: PlaneLayout) -> bool:
        """Whether all readers of a buffer can read a layout."""
        return all(
            self.operations[number].can_read(place, layout)
            for number in self.readers[buffer]
            for place, home in enumerate(self.operations[number].reads)
            if home is not None and home.buffer is buffer
        )

    @staticmethod
    def _plain(buffer: Buffer) -> PlaneLayout:
        return plain_layout(buffer.channels, buffer.height, buffer.width)

    def tables(self) -> Iterator[Table]:
        """What operations take, and what it takes to bring tensors to NCHW for others, by the layouts of buffers."""
        numbers = {buffer: number for number, buffer in enumerate(self.options)}
        for number, operation in enumerate(self.operations):
            homes = [*operation.reads, operation.writes]
            buffers = list(dict.fromkeys(home.buffer for home in homes if home is not None))
            layouts = [self.options[buffer] for buffer in buffers]
            costs = [self._cycles(number, dict(zip(buffers, chosen, strict=True))) for chosen in product(*layouts)]
            shape = [len(options) for options in layouts]
            yield Table(tuple(numbers[buffer] for buffer in buffers), np.array(costs, np.float64).reshape(shape))
        for buffer in self.options:
            if buffer in self.fallback:
                costs = [buffer.batch * self._unpacking(layout) for layout in self.options[buffer]]
                yield Table((numbers[buffer],), np.array(costs, np.float64))

    def _unpacking(self, layout: PlaneLayout) -> float:
        """Cycles to bring an image of a tensor to NCHW, of which packing can read whole rows only."""
        if layout.plain:
            return 0.0
        return math.inf if layout.main is None else pack_cycles(layout, self.lanes, self.core.costs)

    def packed(self, number: int) -> PlaneLayout:
        """The layout in which an operation has its input packed."""
        return min(self.operations[number].proposals(), key=lambda layout: self._repacked(number, layout, {}))

    def _repacked(self, number: int, layout: PlaneLayout, instead: Layouts) -> float:
        """Cycles of an operation that has its input packed; from NCHW that may be nothing."""
        operation = self.operations[number]
        as_it_is = layout.plain and operation.reads[0] is None
        return self._with(number, layout, instead) + (0 if as_it_is else PACKING * operation.batch * layout.size)

    def is_packed(self, number: int, instead: Layouts) -> bool:
        """Whether an operation cannot read its input as it is, or wants so little of it that packing pays."""
        return self.operations[number].reads[0] is None or self._packed(number, instead) < self._direct(number, instead)

    def _cycles(self, number: int, instead: Layouts) -> float:
        return min(self._packed(number, instead), self._direct(number, instead))

    def _direct(self, number: int, instead: Layouts) -> float:
        home = self.operations[number].reads[0]
        return math.inf if home is None else self._with(number, self._layout(home.buffer, instead), instead)

    def _packed(self, number: int, instead: Layouts) -> float:
        operation = self.operations[number]
        home = operation.reads[0]
        # Packing reads whole rows.
        if home is not None and self._layout(home.buffer, instead).main is None:
            return math.inf
        calls = 1 if home is None else home.runs
        key = number, *self._others(operation, instead)
        if key not in self._least_packed:
            packed = (self._repacked(number, layout, instead) for layout in operation.proposals())
            self._least_packed[key] = min(packed)
        return calls * CALL_CYCLES + self._least_packed[key]

    def _others(self, operation: BufferUser, instead: Layouts) -> tuple[tuple[PlaneLayout, ...], PlaneLayout | None]:
        """The layouts of all that an operation reads but its first input, and of what it writes."""
        others = tuple(self._layout(home.buffer, instead) for home in operation.reads[1:] if home is not None)
        return others, None if operation.writes is None else self._layout(operation.writes.buffer, instead)

    def _with(self, number: int, source: PlaneLayout, instead: Layouts) -> float:
        operation = self.operations[number]
        others, target = self._others(operation, instead)
        key = (number, source, others, target)
        if key not in self._costs:
            self._costs[key] = operation.cycles([source, *others], target)
        return self._costs[key]

    def _layout(self, buffer: Buffer, instead: Layouts) -> PlaneLayout:
        return instead.get(buffer) or self.layouts.get(buffer) or self._plain(buffer)
