"""Tensors in one arena: never two of one step in the same bytes, and little more than the largest live set."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.arena import ALIGNMENT, Lifetime, largest_live_set, pack

LIFETIMES = st.lists(
    st.builds(
        lambda nbytes, first, steps: Lifetime(nbytes, first, first + steps),
        st.integers(0, 4000),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(LIFETIMES)
def test_tensors_of_one_step_lie_apart(tensors: list[Lifetime]) -> None:
    arena = pack(tensors)
    placed = list(zip(tensors, arena.offsets, strict=True))
    for tensor, offset in placed:
        assert offset % ALIGNMENT == 0
        assert 0 <= offset <= arena.nbytes - tensor.nbytes
    for (one, low), (other, high) in itertools.combinations(placed, 2):
        apart = low + one.nbytes <= high or high + other.nbytes <= low or not one.nbytes or not other.nbytes
        assert apart or one.last < other.first or other.last < one.first
    live = [sum(t.nbytes for t in tensors if t.first <= step <= t.last) for step in range(50)]
    assert largest_live_set(tensors) == max(live) <= arena.nbytes


def chain(sizes: list[int]) -> list[Lifetime]:
    """Each tensor is made by one step and read by the next."""
    return [Lifetime(size, step, step + 1) for step, size in enumerate(sizes)]


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    sizes = [64, 640, 128, 1280, 64, 1280, 128]
    tensors = chain(sizes)
    assert largest_live_set(tensors) == pack(tensors).nbytes == 1280 + 128


def test_a_shortcut_waits_while_others_come_and_go() -> None:
    tensors = [Lifetime(1024, 0, 9), *chain([64, 4096, 64, 2048, 4096, 64])]
    assert pack(tensors).nbytes == largest_live_set(tensors)


def test_what_sticks_out_is_placed_again() -> None:
    # Placed by size, those of 5 and 4 lines come first, that of 2 behind the latter, and that of 1 behind them all.
    lines = [(5, 2, 5), (4, 0, 0), (2, 0, 1), (1, 1, 3)]
    tensors = [Lifetime(ALIGNMENT * count, first, last) for count, first, last in lines]
    assert pack(tensors).nbytes == largest_live_set(tensors) == 6 * ALIGNMENT


def test_sizes_are_rounded_to_lines() -> None:
    arena = pack([Lifetime(1, 0, 1), Lifetime(65, 1, 2)])
    assert sorted(arena.offsets) in ([0, 64], [0, 128])
    assert arena.nbytes == 192
    assert largest_live_set([]) == pack([]).nbytes == 0
