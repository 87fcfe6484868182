"""A model of what the analytic one gets wrong, learned from trials: boosted trees over layer, encoding and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.latency.features import features, matrix
from pconvgen.records.record import Record

ENOUGH = 12
"""Trials from which on there is something to learn."""
PRIOR_WEIGHT = 0.25
"""What a trial of another target or device counts, against one of this."""


class Ranker:
    """Predicts the cost of a trial as the analytic model's cycles times a factor.

    With few trials the factor is the same for all, so that the ranking is the analytic model's.

    Parameters
    ----------
    prior: records of other targets or devices. By how much they differ from each other is learned, with less weight;
        how long anything takes is not.

    Attributes
    ----------
    prior: how many of those have figures.
    """

    def __init__(self, prior: Sequence[Record] = ()) -> None:
        self._model: Any = None
        self._scale = 0.0
        self._prior = [part for part in _by_place(prior) if len(part[1]) >= ENOUGH]
        self.prior = sum(len(y) for _, y in self._prior)

    def fit(self, records: Sequence[Record]) -> None:
        """Learns from the trials that have figures. All are of one target and device."""
        parts = list(_by_place(records))
        if not parts:
            return
        ((x, y),) = parts
        self._scale = float(np.median(y))
        if len(y) < ENOUGH:
            return
        from xgboost import XGBRegressor

        self._model = XGBRegressor(
            n_estimators=120, max_depth=5, learning_rate=0.15, subsample=0.9, reg_lambda=1.0, n_jobs=1, random_state=0
        )
        weights = [np.ones(len(y)), *(np.full(len(other), PRIOR_WEIGHT) for _, other in self._prior)]
        factors = [y - self._scale, *(other - np.median(other) for _, other in self._prior)]
        rows = np.concatenate([x, *(other for other, _ in self._prior)])
        self._model.fit(rows, np.concatenate(factors), sample_weight=np.concatenate(weights))

    def predict(
        self,
        workload: Mapping[str, Any],
        places: Mapping[str, Any] | None,
        weight: Mapping[str, Any],
        trials: Sequence[tuple[Mapping[str, Any], float]],
    ) -> NDArray[np.float64]:
        """Costs of some (trial, analytic cycles) of one layer, in the unit of the records."""
        cycles = np.array([cycles for _, cycles in trials])
        if self._model is None:
            return np.asarray(cycles * math.exp(self._scale))
        rows = [features(workload, places, weight, trial, cycles) for trial, cycles in trials]
        x = matrix(rows, tuple(rows[0]))
        return np.asarray(cycles * np.exp(self._scale + self._model.predict(x)))


def _by_place(records: Sequence[Record]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each target and device class: features of the trials with figures, and the logarithms of their factors."""
    places: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.cost is not None:
            places.setdefault(record.where, []).append(record)
    yield from map(examples, places.values())


def features_of(record: Record) -> dict[str, float]:
    """What models see of a record."""
    return features(record.workload, record.places, record.weight, record.trial, record.predicted_cycles)


def examples(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features of records with figures, all of them in their order, and the logarithms of cost by analytic cycles."""
    rows = [features_of(record) for record in records]
    return matrix(rows, tuple(rows[0]) if rows else ()), np.array(
        [math.log((r.cost or 1.0) / r.predicted_cycles) for r in records]
    )
