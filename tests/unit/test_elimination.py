"""The least sum of tables, against trying everything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from pconvgen.planning import elimination
from pconvgen.planning.elimination import Table, least


def cost(chosen: Sequence[int], tables: Sequence[Table]) -> float:
    return sum(float(table.costs[tuple(chosen[variable] for variable in table.scope)]) for table in tables)


def problem(rng: np.random.Generator, variables: int, count: int, most: int) -> tuple[list[int], list[Table]]:
    """Random tables, some of whose options do not go together."""
    sizes = [int(size) for size in rng.integers(1, 5, variables)]
    tables = []
    for _ in range(count):
        scope = tuple(int(v) for v in rng.permutation(variables)[: rng.integers(1, min(most, variables) + 1)])
        costs = rng.integers(0, 50, [sizes[variable] for variable in scope]).astype(np.float64)
        tables.append(Table(scope, np.where(rng.random(costs.shape) < 0.1, np.inf, costs)))
    return sizes, tables


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, tables = problem(rng, int(rng.integers(1, 7)), int(rng.integers(0, 10)), most=3)
    everything = min(cost(chosen, tables) for chosen in product(*map(range, sizes)))
    assert cost(least(sizes, tables), tables) == everything


def test_a_long_chain_with_residuals() -> None:
    rng = np.random.default_rng(0)
    sizes = [10] * 1000
    scopes = [(i, i + 1) for i in range(999)] + [(i, i + 2, i + 3) for i in range(0, 997, 3)]
    tables = [Table(scope, rng.random([10] * len(scope))) for scope in scopes]
    found = least(sizes, tables)
    for variable in range(0, 1000, 37):
        others = ([*found[:variable], option, *found[variable + 1 :]] for option in range(10))
        assert min(cost(other, tables) for other in others) >= cost(found, tables) - 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_tables_that_would_be_too_large_are_not_made(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "LARGEST", 20)
    rng = np.random.default_rng(seed)
    sizes = [4] * 8
    tables = [Table((i, j), rng.random((4, 4))) for i in range(8) for j in range(i)]
    found = cost(least(sizes, tables), tables)
    mean = sum(float(table.costs.mean()) for table in tables)
    best = min(cost(chosen, tables) for chosen in rng.integers(0, 4, (2000, 8)).tolist())
    assert found < mean
    assert found <= 1.25 * best


def test_ties_go_to_the_first_option() -> None:
    assert least([3, 2], [Table((0, 1), np.zeros((3, 2)))]) == [0, 0]
