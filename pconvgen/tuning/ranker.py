"""A model of what the analytic one gets wrong, learned from trials: boosted trees over layer, encoding and schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.tuning.record import Record

ENOUGH = 12
"""Trials from which on there is something to learn."""


class Ranker:
    """Predicts the cost of a trial as the analytic model's cycles times a factor.

    With few trials the factor of a layer is the one seen so far, so that the ranking is the analytic model's.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._scale = 0.0

    def fit(self, records: Sequence[Record]) -> None:
        """Learns from the trials that have figures. All are of one target and device."""
        useful = [record for record in records if record.cost is not None]
        if not useful:
            return
        y = np.array([math.log(float(record.cost or 1.0) / record.predicted_cycles) for record in useful])
        self._scale = float(np.median(y))
        if len(useful) < ENOUGH:
            return
        from xgboost import XGBRegressor

        x = np.array([features(r.workload, r.places, r.weight, r.trial, r.predicted_cycles) for r in useful])
        self._model = XGBRegressor(
            n_estimators=120, max_depth=5, learning_rate=0.15, subsample=0.9, reg_lambda=1.0, n_jobs=1, random_state=0
        )
        self._model.fit(x, y - self._scale)

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
        x = np.array([features(workload, places, weight, trial, cycles) for trial, cycles in trials])
        return np.asarray(cycles * np.exp(self._scale + self._model.predict(x)))


def features(
    workload: Mapping[str, Any],
    places: Mapping[str, Any] | None,
    weight: Mapping[str, Any],
    trial: Mapping[str, Any],
    predicted_cycles: float,
) -> list[float]:
    """What the model sees of a trial; the same numbers in the same order for all layers and templates."""
    w = workload
    macs = w["out_channels"] * w["in_channels"] * w["kernel"][0] * w["kernel"][1] / w["groups"]
    source = (places or {}).get("source") or {}
    target = (places or {}).get("target") or {}
    lanes = trial.get("lanes", 1)
    return [
        math.log(predicted_cycles),
        float(w["batch"]), float(w["in_channels"]), float(w["height"]), float(w["width"]), float(w["out_channels"]),
        float(w["kernel"][0]), float(w["kernel"][1]), float(w["stride"][0]), float(w["stride"][1]), float(w["groups"]),
        float(w["epilogue"]["residual"]), math.log(macs),
        weight["nonzeros"] / weight["size"], float(weight["spread"]), math.log1p(weight["nonzeros"]),
        *(float(trial["structure"] == name) for name in ("dense", "pattern", "simd_block", "unstructured")),
        *(float(trial["template"] == name) for name in ("pixels", "channels", "winograd")),
        float(trial["max_group"]), float(trial["params"].get("n", 0) or 0), float(lanes),
        *(float(trial.get(name, -1)) for name in ("vectors", "height", "rows", "filters_inside", "channels")),
        *(float(trial.get(name, -1)) for name in ("prefetch", "images", "unroll", "tile", "filters")),
        float(source.get("pitch", 0)), float(len(source.get("phases", ()))), float(source.get("interleaved", False)),
        float(target.get("pitch", 0)), float(len(target.get("phases", ()))), float(target.get("interleaved", False)),
        (w["width"] // w["stride"][1]) % lanes / lanes,
    ]  # fmt: skip
