"""How well latency is predicted for what the model has not seen: whole layers, and whole networks, are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.latency.model import LEAST
from pconvgen.latency.quantiles import folds, learn, train
from pconvgen.latency.ranker import examples
from pconvgen.records.record import Record

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
                found.append(rank_correlation(self.measured[rows], self.predicted[rows]))
        return float(np.mean(found)) if found else float("nan")


def rank_correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman's; of numbers that are all different."""
    first, second = (np.argsort(np.argsort(values)).astype(float) for values in (left, right))
    return float(np.corrcoef(first, second)[0, 1])


def evaluate(records: Sequence[Record], network: Callable[[Record], str] = lambda record: record.model) -> Evaluation:
    """Predicts each layer from the others, and each network from those that `network` has other names for.

    All records are timed and of one target and device class.
    """
    rows, logarithms = examples(records)
    cycles = np.array([record.predicted_cycles for record in records])
    tasks = [record.task for record in records]
    quantiles = np.zeros((len(records), 3))
    for held in folds(tasks):
        rest = [task for task, out in zip(tasks, held, strict=True) if not out]
        quantiles[held] = learn(rows[~held], logarithms[~held], rest).factors.predict(rows[held])
    times = cycles[:, None] * np.exp(quantiles)
    measured = cycles * np.exp(logarithms)
    inside = (times[:, 0] <= measured) & (measured <= times[:, 2])
    return Evaluation(
        tuple(records), measured, times[:, 1], inside, _networks(records, network, rows, logarithms, cycles)
    )


def _networks(
    records: Sequence[Record],
    network: Callable[[Record], str],
    rows: NDArray[np.float64],
    logarithms: NDArray[np.float64],
    cycles: NDArray[np.float64],
) -> dict[str, tuple[float, float]]:
    found = {}
    for name in sorted({record.model for record in records}):
        mine = np.array([record.model == name for record in records])
        (unseen,) = {network(record) for record in records if record.model == name}
        theirs = {record.task for record in records if network(record) == unseen}
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
        predicted = cycles[chosen] * np.exp(train(rows[others], logarithms[others]).predict(rows[chosen])[:, 1])
        measured = cycles[chosen] * np.exp(logarithms[chosen])
        found[name] = (float(measured.sum()), float(predicted.sum()))
    return found
