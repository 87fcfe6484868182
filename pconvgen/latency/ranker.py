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
MEMBERS = 5
"""Models that are learned from different parts of the trials: where they disagree, there is something to find out."""


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
        self._models: list[Any] = []
        self._scale = 0.0
        self._prior = [part for part in _by_place(prior) if len(part[1]) >= ENOUGH]
        self.prior = sum(len(y) for _, y in self._prior)

    @property
    def learned(self) -> bool:
        """Whether there were enough trials to learn from."""
        return bool(self._models)

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

        weights = [np.ones(len(y)), *(np.full(len(other), PRIOR_WEIGHT) for _, other in self._prior)]
        factors = [y - self._scale, *(other - np.median(other) for _, other in self._prior)]
        rows = np.concatenate([x, *(other for other, _ in self._prior)])
        numbers, weight = np.concatenate(factors), np.concatenate(weights)
        rng = np.random.default_rng(0)
        self._models = []
        for seed in range(MEMBERS):
            model = XGBRegressor(
                n_estimators=80, max_depth=5, learning_rate=0.15, subsample=0.9, reg_lambda=1.0, n_jobs=1,
                random_state=seed,
            )  # fmt: skip
            # A bootstrap by weights: each sees some rows more than once, and some not at all.
            model.fit(rows, numbers, sample_weight=weight * rng.exponential(size=len(rows)))
            self._models.append(model)

    def predict(
        self,
        workload: Mapping[str, Any],
        places: Mapping[str, Any] | None,
        weight: Mapping[str, Any],
        trials: Sequence[tuple[Mapping[str, Any], float]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Costs of some (trial, analytic cycles) of one layer, in the unit of the records; and how far what was learned
        from different parts of the trials differs there: standard deviations of the logarithm."""
        cycles = np.array([cycles for _, cycles in trials])
        if not self._models:
            return np.asarray(cycles * math.exp(self._scale)), np.zeros(len(cycles))
        rows = [features(workload, places, weight, trial, cycles) for trial, cycles in trials]
        x = matrix(rows, tuple(rows[0]))
        found = np.stack([model.predict(x) for model in self._models]).astype(np.float64)
        return np.asarray(cycles * np.exp(self._scale + found.mean(axis=0))), found.std(axis=0)


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
