"""How well latency is predicted for what the model has not seen: whole layers, and whole networks, are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.latency.model import LEAST, QUANTILES, examples, train
from pconvgen.tuning.record import Record

FOLDS = 5
RANKED = 8
"""Trials of a layer from which on their order says something."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions for layers that were held out.

    Attributes
    ----------
    records: in the order of the arrays.
    measured, predicted: seconds.
    inside: whether the measured time lies in the interval.
    networks: network -> (measured, predicted) total of the default schedules of its layers, each once, when no layer of
        it was learned from.
    """

    records: tuple[Record, ...]
    measured: NDArray[np.float64]
    predicted: NDArray[np.float64]
    inside: NDArray[np.bool_]
    networks: dict[str, tuple[float, float]]

    @property
    def error(self) -> float:
        """Median over the trials of the absolute error by the measured time."""
        return float(np.median(np.abs(self.predicted / self.measured - 1)))

    @property
    def rank_correlation(self) -> float:
        """Mean over the layers of Spearman's correlation between measured and predicted times of a layer's trials."""
        found = []
        for task in {record.task for record in self.records}:
            rows = [i for i, record in enumerate(self.records) if record.task == task]
            if len(rows) >= RANKED:
                left, right = (np.argsort(np.argsort(a[rows])).astype(float) for a in (self.measured, self.predicted))
                found.append(float(np.corrcoef(left, right)[0, 1]))
        return float(np.mean(found)) if found else float("nan")


def evaluate(records: Sequence[Record]) -> Evaluation:
    """Predicts each layer from the others. All records are timed and of one target and device class."""
    rows, logarithms = examples(records)
    cycles = np.array([record.predicted_cycles for record in records])
    tasks = [record.task for record in records]
    order = sorted(set(tasks))
    np.random.default_rng(0).shuffle(order)
    fold = {task: number % FOLDS for number, task in enumerate(order)}
    groups = np.array([fold[task] for task in tasks])
    quantiles = np.zeros((len(records), len(QUANTILES)))
    for number in range(FOLDS):
        held = groups == number
        if held.any() and (~held).sum():
            quantiles[held] = _predict(rows[~held], logarithms[~held], rows[held])
    times = cycles[:, None] * np.exp(np.sort(quantiles, axis=1))
    measured = cycles * np.exp(logarithms)
    inside = (times[:, 0] <= measured) & (measured <= times[:, 2])
    return Evaluation(tuple(records), measured, times[:, 1], inside, _networks(records, rows, logarithms, cycles))


def _networks(
    records: Sequence[Record], rows: NDArray[np.float64], logarithms: NDArray[np.float64], cycles: NDArray[np.float64]
) -> dict[str, tuple[float, float]]:
    found = {}
    for network in sorted({record.model for record in records}):
        mine = np.array([record.model == network for record in records])
        theirs = {record.task for record, own in zip(records, mine, strict=True) if own}
        others = np.array([record.task not in theirs for record in records])
        if others.sum() < LEAST:
            continue
        # The default schedule of each layer: what the analytic model likes best.
        default: dict[str, int] = {}
        for index in np.flatnonzero(mine).tolist():
            task = records[index].task
            if task not in default or cycles[index] < cycles[default[task]]:
                default[task] = index
        chosen = list(default.values())
        predicted = cycles[chosen] * np.exp(_predict(rows[others], logarithms[others], rows[chosen])[:, 1])
        measured = cycles[chosen] * np.exp(logarithms[chosen])
        found[network] = (float(measured.sum()), float(predicted.sum()))
    return found


def _predict(
    rows: NDArray[np.float64], logarithms: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    import xgboost

    found = train(rows, logarithms).predict(xgboost.DMatrix(wanted))
    return np.asarray(found, np.float64).reshape(len(wanted), len(QUANTILES))
