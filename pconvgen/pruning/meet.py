"""Meeting a budget by measuring: which predicted cost a network must have to take as long as it may."""

from __future__ import annotations

from collections.abc import Callable

ROUNDS = 10
"""Measurements at most."""
ON_BUDGET = (0.97, 1.0)
"""Shares of the budget between which nothing better is looked for."""
AIM = 0.985
"""Of the budget: between these, because what is measured is not exact."""
CLOSE = 1.003
"""Goals that differ by less than this factor give the same network."""


def meet(budget: float, attempt: Callable[[float], float]) -> tuple[float, float]:
    """The goal whose result is the largest within the budget, or the smallest of all if none is, and that result.

    Costs are predicted by layer, while layouts and kernels are chosen for the network: results rise with goals, but by
    steps. So a goal is corrected in proportion as long as that stays between one that was too small and one that was
    too large, and halved between them otherwise.

    Parameters
    ----------
    budget: what the result may be, more than 0.
    attempt: a goal -> its result; asked ROUNDS times at most, first for the budget itself.
    """
    tried: dict[float, float] = {}
    low, high, goal = 0.0, float("inf"), budget
    for _ in range(ROUNDS):
        tried[goal] = found = attempt(goal)
        if ON_BUDGET[0] * budget <= found <= ON_BUDGET[1] * budget:
            break
        low, high = (max(low, goal), high) if found <= budget else (low, min(high, goal))
        if low > 0 and high <= CLOSE * low:
            break
        goal *= AIM * budget / found
        if not low < goal < high:
            goal = (low + high) / 2 if high < float("inf") else 2 * low
    within = {goal: found for goal, found in tried.items() if found <= budget}
    best = max(within, key=within.__getitem__) if within else min(tried, key=tried.__getitem__)
    return best, tried[best]
