"""Placing tensors in one arena: tensors that live at the same time may not overlap, and the arena is to be small.

The greedy placement by size with the best fit of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
Inference" (2020), and then again with what sticks out placed earlier. Finding the smallest arena is NP-hard.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

ALIGNMENT = 64
"""Bytes to a multiple of which offsets are rounded: what kernels assume of an address, and a cache line."""

REPAIRS = 20
"""How often an order of the tensors is repaired. On networks a handful suffices to reach the largest live set."""


@dataclass(frozen=True)
class Lifetime:
    """How many bytes a tensor has, and the steps of the program in which it is needed: `first` to `last`, inclusive."""

    nbytes: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """The bytes that it takes in an arena."""
        return -(-self.nbytes // ALIGNMENT) * ALIGNMENT

    def meets(self, other: Lifetime) -> bool:
        """Whether there is a step in which both are needed."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where tensors lie: the offset of each in bytes, and the bytes of all."""

    offsets: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class ActivationMemory:
    """What the activations of a model need: the bytes of their arena, and of the largest live set, its lower bound."""

    nbytes: int
    live_nbytes: int


def largest_live_set(tensors: Sequence[Lifetime]) -> int:
    """The most bytes that are needed in one step: no arena is smaller."""
    changes: dict[int, int] = {}
    for tensor in tensors:
        changes[tensor.first] = changes.get(tensor.first, 0) + tensor.nbytes
        changes[tensor.last + 1] = changes.get(tensor.last + 1, 0) - tensor.nbytes
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)


def pack(tensors: Sequence[Lifetime]) -> Arena:
    """A small arena for `tensors`; equal tensors get equal offsets."""
    # The sizes in an arena are multiples of the alignment, so it can be no smaller than this.
    least = largest_live_set([Lifetime(tensor.size, tensor.first, tensor.last) for tensor in tensors])
    tried = (arena for order in _orders(tensors) for arena in _repaired(tensors, order))
    best = next(tried)
    for arena in tried:
        if best.nbytes == least:
            break
        best = min(best, arena, key=lambda found: found.nbytes)
    return best


def _orders(tensors: Sequence[Lifetime]) -> list[list[int]]:
    """Orders in which to place tensors, the hardest ones to place first: large ones, and large ones that live long."""
    areas = [tensor.size * (tensor.last - tensor.first + 1) for tensor in tensors]
    indices = range(len(tensors))
    return [sorted(indices, key=lambda i: (-tensors[i].size, -areas[i])), sorted(indices, key=lambda i: -areas[i])]


def _repaired(tensors: Sequence[Lifetime], order: list[int]) -> Iterator[Arena]:
    """The arena of an order, then those of better ones: the tensor at the end comes in half as many places."""
    for _ in range(REPAIRS):
        arena = _place(tensors, order)
        yield arena
        if not tensors:
            return
        last = max(order, key=lambda i: arena.offsets[i] + tensors[i].size)
        place = order.index(last)
        order.insert(place // 2, order.pop(place))


def _place(tensors: Sequence[Lifetime], order: Sequence[int]) -> Arena:
    """Tensor after tensor into the smallest gap between those that live with it and have a place, else behind them."""
    offsets = [0] * len(tensors)
    placed: list[tuple[int, int]] = []
    nbytes = 0
    for index in order:
        tensor = tensors[index]
        end, gaps = 0, []
        for offset, other in placed:
            if tensor.meets(tensors[other]):
                if offset - end >= tensor.size:
                    gaps.append((offset - end, end))
                end = max(end, offset + tensors[other].size)
        offsets[index] = min(gaps)[1] if gaps else end
        insort(placed, (offsets[index], index))
        nbytes = max(nbytes, offsets[index] + tensor.size)
    return Arena(tuple(offsets), nbytes)
