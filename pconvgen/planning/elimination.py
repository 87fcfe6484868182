"""The least sum of tables over variables with few options each, exactly.

Variables are eliminated one after the other: the tables that depend on one are added up, and the least over its options
is a table of its neighbours (bucket elimination: Dechter, Artificial Intelligence 113, 1999; with one or two neighbours
these are the reductions RI and RII of partitioned Boolean quadratic programming: Scholz and Eckstein, LCTES 2002).
Chains, and residuals around them, never need a table of more than three variables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 18
"""Elements of a table at most. Where one would be larger, a variable takes what is best for each table by itself."""


@dataclass(frozen=True, eq=False)
class Table:
    """Costs of some variables together.

    Attributes
    ----------
    scope: the variables, each once.
    costs: float64, one axis for each of them: [options, ...]; infinite where options do not go together.
    """

    scope: tuple[int, ...]
    costs: NDArray[np.float64]


def least(sizes: Sequence[int], tables: Sequence[Table]) -> list[int]:
    """The options with which the sum of `tables` is least.

    Parameters
    ----------
    sizes: how many options each variable has.
    tables: of variables from 0 to len(sizes) - 1.
    """
    tables_of: dict[int, list[Table]] = {variable: [] for variable in range(len(sizes))}
    for table in tables:
        for variable in table.scope:
            tables_of[variable].append(table)
    scopes = {variable: _scope(variable, mine) for variable, mine in tables_of.items()}

    def elements(variable: int) -> int:
        """Of the table that eliminating a variable needs."""
        return math.prod(sizes[other] for other in scopes[variable])

    needed = {variable: elements(variable) for variable in scopes}
    eliminated: list[tuple[int, Table]] = []
    while needed:
        variable = min(needed, key=needed.__getitem__)
        mine = tables_of.pop(variable)
        if needed.pop(variable) > LARGEST:
            fixed = _fixed(variable, mine)
            only = np.where(np.arange(sizes[variable]) == fixed, 0.0, np.inf)
            eliminated.append((variable, Table((variable,), only)))
            made = [_given(table, variable, fixed) for table in mine]
        else:
            total = _sum(scopes[variable], sizes, mine)
            eliminated.append((variable, total))
            made = [Table(total.scope[1:], np.asarray(total.costs.min(axis=0)))]
        for other in scopes.pop(variable)[1:]:
            tables_of[other] = [table for table in tables_of[other] if variable not in table.scope]
            tables_of[other] += [table for table in made if other in table.scope]
            scopes[other] = _scope(other, tables_of[other])
            needed[other] = elements(other)
    chosen = [0] * len(sizes)
    for variable, table in reversed(eliminated):
        known: Any = (slice(None), *(chosen[other] for other in table.scope[1:]))
        chosen[variable] = int(table.costs[known].argmin())
    return chosen


def _scope(variable: int, tables: Sequence[Table]) -> tuple[int, ...]:
    """A variable and those that share tables with it."""
    return variable, *sorted({other for table in tables for other in table.scope} - {variable})


def _sum(scope: tuple[int, ...], sizes: Sequence[int], tables: Sequence[Table]) -> Table:
    total = np.zeros([sizes[variable] for variable in scope])
    for table in tables:
        order = sorted(range(len(table.scope)), key=lambda axis: scope.index(table.scope[axis]))
        shape = [sizes[variable] if variable in table.scope else 1 for variable in scope]
        total += table.costs.transpose(order).reshape(shape)
    return Table(scope, total)


def _fixed(variable: int, tables: Sequence[Table]) -> int:
    """The option that is best if every other variable suits it, in each table by itself."""
    total = np.zeros(1)
    for table in tables:
        axis = table.scope.index(variable)
        rows = np.moveaxis(table.costs, axis, 0).reshape(table.costs.shape[axis], -1)
        total = total + rows.min(axis=1)
    return int(total.argmin())


def _given(table: Table, variable: int, option: int) -> Table:
    axis = table.scope.index(variable)
    scope = tuple(other for other in table.scope if other != variable)
    return Table(scope, np.asarray(table.costs.take(option, axis=axis)))
