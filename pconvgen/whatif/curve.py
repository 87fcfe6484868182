"""Latency of a layer as a piecewise-linear function of its density, as ALCS prunes by.

Knots lie where the curve bends rather than at equal distances: an interval is halved as long as what is found in its
middle is not what a straight line says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pconvgen.errors import UsageError

TOLERANCE = 0.02
"""A line that is off by this share in the middle of an interval is bent there."""
MOST = 17
"""Knots of a curve at most."""


@dataclass(frozen=True)
class LatencyCurve:
    """Monotone: more weights never take less time.

    Attributes
    ----------
    densities: of the knots, ascending.
    costs: at the knots, in seconds or whatever they were found in.
    """

    densities: tuple[float, ...]
    costs: tuple[float, ...]

    def at(self, density: float) -> float:
        """The cost at a density between the first and the last knot.

        Raises
        ------
        UsageError: it lies outside of them.
        """
        first, last = self.densities[0], self.densities[-1]
        if not first <= density <= last:
            raise UsageError("the curve ends before that density", found=density, expected=f"{first:g} to {last:g}")
        return float(np.interp(density, self.densities, self.costs))


def curve(cost: Callable[[float], float], low: float, high: float) -> LatencyCurve:
    """The curve of a layer between two densities.

    Parameters
    ----------
    cost: what the layer takes at a density, measured or predicted; asked once for each.
    low, high: ends of the curve, which is a point when they are equal.
    """
    from scipy.optimize import isotonic_regression  # takes as long to import as all the rest

    found = {density: cost(density) for density in (low, high)}
    open_ = [(low, high)] if low < high else []
    while open_ and len(found) < MOST:
        # The widest interval first, so that what is left when knots run out is even.
        left, right = open_.pop(max(range(len(open_)), key=lambda i: open_[i][1] - open_[i][0]))
        middle = (left + right) / 2
        found[middle] = cost(middle)
        straight = (found[left] + found[right]) / 2
        if abs(found[middle] - straight) > TOLERANCE * min(found[left], found[middle], found[right]):
            open_ += [(left, middle), (middle, right)]
    densities = sorted(found)
    # What was measured to fall is averaged: the nearest costs that never do, by least squares.
    costs = isotonic_regression([found[density] for density in densities]).x
    return LatencyCurve(tuple(densities), tuple(costs.tolist()))


def added(curves: Sequence[LatencyCurve]) -> LatencyCurve:
    """The sum of curves over the densities that all of them have."""
    low = max(curve.densities[0] for curve in curves)
    high = min(curve.densities[-1] for curve in curves)
    knots = sorted({low, high, *(d for curve in curves for d in curve.densities if low < d < high)})
    return LatencyCurve(tuple(knots), tuple(sum(curve.at(density) for curve in curves) for density in knots))
