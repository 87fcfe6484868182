"""Boosted trees (xgboost) that predict numbers from rows of features, each with the interval that it lies in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTER = (0.1, 0.9)
"""Quantiles between which 80 % of the numbers lie."""
FOLDS = 5
"""Parts of the rows that are left out, one after the other, to see how well they are predicted."""
ROUNDS, MORE_ROUNDS = 250, 80
"""Trees for each number; those that are added to what was learned elsewhere."""


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Boosted trees that predict numbers, and between which others they lie.

    Attributes
    ----------
    middle, outer: xgboost's, of the expected number and of the quantiles around it. With few records a mean is learned
        better than a median.
    widening: by how much the outer ones are moved outwards.
    shift: what is added to all.
    """

    middle: Any
    outer: Any
    widening: float
    shift: float = 0.0

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Low, middle and high for each row."""
        import xgboost

        data = xgboost.DMatrix(rows, nthread=1)
        middle = np.asarray(self.middle.predict(data), np.float64)
        outer = np.asarray(self.outer.predict(data), np.float64).reshape(len(rows), len(OUTER))
        low, high = outer.min(axis=1) - self.widening, outer.max(axis=1) + self.widening
        return np.stack([np.minimum(low, middle), middle, np.maximum(high, middle)], axis=1) + self.shift


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned, and how good it is.

    Attributes
    ----------
    factors: of all rows.
    held_out: low, middle and high of each row, by what was learned from other groups, float64 [rows, 3].
    error: median over the rows of how far the middle is from the number then.
    """

    factors: Quantiles
    held_out: NDArray[np.float64]
    error: float


def learn(
    rows: NDArray[np.float64], numbers: NDArray[np.float64], groups: Sequence[str], base: Quantiles | None = None
) -> Learned:
    """Trees for the quantiles of some numbers; the same for equal data.

    What trees say of rows that they have seen is too good. Each group is therefore predicted from the others, and the
    outer quantiles are moved until they hold as many of these as they should: conformalized quantile regression
    (Romano, Patterson, Candes, NeurIPS 2019), with whole groups left out.

    Parameters
    ----------
    rows: features, float64 [rows, features].
    numbers: what is learned, float64 [rows].
    groups: a name for each row.
    base: what was learned of the same features elsewhere, which is gone on from.
    """
    found = np.zeros((len(rows), 3))
    for held in folds(groups):
        found[held] = train(rows[~held], numbers[~held], base).predict(rows[held])
    beyond = np.maximum(found[:, 0] - numbers, numbers - found[:, -1])
    widening = max(0.0, float(np.quantile(beyond, OUTER[1] - OUTER[0])))
    widened = found + np.array([-widening, 0.0, widening])
    error = float(np.median(np.abs(found[:, 1] - numbers)))
    trained = train(rows, numbers, base)
    return Learned(replace(trained, widening=trained.widening + widening), widened, error)


def folds(groups: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Masks of rows that are left out together: each row once, groups as a whole."""
    names = sorted(set(groups))
    np.random.default_rng(0).shuffle(names)
    number = {name: index % FOLDS for index, name in enumerate(names)}
    mine = np.array([number[name] for name in groups])
    for fold in range(min(FOLDS, len(names))):
        yield mine == fold


def train(rows: NDArray[np.float64], numbers: NDArray[np.float64], base: Quantiles | None = None) -> Quantiles:
    """As `learn`, with outer quantiles as the trees give them: too close."""
    import xgboost

    shared = {
        "max_depth": 6,
        "eta": 0.08,
        "subsample": 0.8,
        "colsample_bytree": 0.6,
        "min_child_weight": 2,
        "nthread": 1,
        "seed": 0,
    }
    expected = {"objective": "reg:squarederror", **shared}
    quantiles = {"objective": "reg:quantileerror", "quantile_alpha": np.array(OUTER), **shared}
    if base is None:
        data = xgboost.QuantileDMatrix(rows, numbers, nthread=1)
        middle = xgboost.train(expected, data, num_boost_round=ROUNDS)
        return Quantiles(middle, xgboost.train(quantiles, data, num_boost_round=ROUNDS), 0.0)
    # How fast another device is as a whole says nothing of this one.
    shift = float(np.median(numbers - base.predict(rows)[:, 1])) + base.shift
    rest = xgboost.DMatrix(rows, numbers - shift, nthread=1)
    middle, outer = (
        xgboost.train(params, rest, num_boost_round=MORE_ROUNDS, xgb_model=before)
        for params, before in ((expected, base.middle), (quantiles, base.outer))
    )
    return Quantiles(middle, outer, base.widening, shift)
