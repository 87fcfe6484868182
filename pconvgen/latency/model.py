"""A model of latency learned from records: how long a schedule of a layer takes on one target and kind of device.

Boosted trees (xgboost) predict by what factor the analytic model's cycles are wrong, as three quantiles.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import write_text
from pconvgen.targets.target import Target
from pconvgen.tuning.describe import describe_target
from pconvgen.tuning.ranker import features
from pconvgen.tuning.record import SECONDS, Record, target_key

FORMAT, VERSION = "pconvgen latency model", 1
QUANTILES = (0.1, 0.5, 0.9)
LEAST = 60
"""Records to learn from at least: there are about fifty features."""


@dataclass(frozen=True)
class Interval:
    """A time in seconds: as probable to be longer as shorter than `middle`, and in between `low` and `high` by 80 %."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """What was learned.

    Attributes
    ----------
    target: of the records, `describe_target`.
    device_class: of the records.
    records, tasks: how many there were, and of how many layers.
    booster: xgboost's model of the logarithm of the factor.
    """

    target: Mapping[str, Any]
    device_class: str
    records: int
    tasks: int
    booster: Any

    def check(self, target: Target) -> None:
        """Raises UsageError when it was learned for another target."""
        wanted = target_key(describe_target(target))
        if target_key(self.target) != wanted:
            raise UsageError(
                "the latency model is of another target",
                found=target_key(self.target),
                expected=wanted,
                remedy="fit one to records of this target",
            )

    def predict(self, rows: Sequence[Sequence[float]], cycles: Sequence[float]) -> list[Interval]:
        """The times of some trials, from their `features` and their analytic cycles."""
        factors = np.exp(self._logarithms(np.array(rows)))
        return [Interval(*(float(c * value) for value in sorted(f))) for c, f in zip(cycles, factors, strict=True)]

    def _logarithms(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        import xgboost

        found = self.booster.predict(xgboost.DMatrix(rows))
        return np.asarray(found, np.float64).reshape(len(rows), len(QUANTILES))

    def save(self, path: Path) -> None:
        """Writes it as JSON, the trees in xgboost's own format. Raises PconvgenError when that cannot be done."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "target": dict(self.target),
            "device_class": self.device_class,
            "records": self.records,
            "tasks": self.tasks,
            "booster": base64.b64encode(bytes(self.booster.save_raw("ubj"))).decode(),
        }
        write_text(path, json.dumps(data) + "\n")

    @staticmethod
    def load(path: Path) -> LatencyModel:
        """The inverse of `save`.

        Raises
        ------
        PconvgenError: the file cannot be read, is something else, damaged, or of a newer version.
        """
        import xgboost

        try:
            data = json.loads(path.read_text())
            if data["format"] != FORMAT or data["version"] > VERSION:
                raise ValueError(f"{data['format']}, version {data['version']}")
            booster = xgboost.Booster()
            booster.load_model(bytearray(base64.b64decode(data["booster"])))
            return LatencyModel(data["target"], data["device_class"], data["records"], data["tasks"], booster)
        except OSError as error:
            raise PconvgenError("the latency model cannot be read", file=path, found=error.strerror) from error
        except (ValueError, KeyError, TypeError, xgboost.core.XGBoostError) as error:
            raise PconvgenError(
                "no latency model",
                file=path,
                found=str(error).splitlines()[0],
                expected=f"what `pconvgen latency fit` wrote, version {VERSION} at most",
                remedy="fit it again",
            ) from error


def fit(records: Sequence[Record]) -> LatencyModel:
    """A model of the target and device class that has most of the records. Raises what `most` raises."""
    mine = most(records)
    rows, logarithms = examples(mine)
    return LatencyModel(
        mine[0].target, mine[0].device_class, len(mine), len({record.task for record in mine}), train(rows, logarithms)
    )


def most(records: Sequence[Record]) -> list[Record]:
    """Those of the target and device class that has most of them; failures and counts teach nothing about time.

    Raises
    ------
    PconvgenError: there are too few to learn from.
    """
    timed = [record for record in records if record.cost is not None and record.unit == SECONDS]
    by_where: dict[tuple[str, str], list[Record]] = {}
    for record in timed:
        by_where.setdefault(record.where, []).append(record)
    mine = max(by_where.values(), key=len, default=[])
    if len(mine) < LEAST:
        raise PconvgenError(
            "too few records to learn from",
            found=f"{len(mine)} timed ones of one target and device",
            expected=f"{LEAST} at least",
            remedy="run pconvgen tune longer, or on more models",
        )
    return mine


def examples(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features of records with figures, and the logarithms of seconds by analytic cycles."""
    rows = [features(r.workload, r.places, r.weight, r.trial, r.predicted_cycles) for r in records]
    return np.array(rows), np.array([math.log((r.cost or 1.0) / r.predicted_cycles) for r in records])


def train(rows: NDArray[np.float64], logarithms: NDArray[np.float64]) -> Any:
    """xgboost's trees for the quantiles; the same for equal data."""
    import xgboost

    parameters = {
        "objective": "reg:quantileerror",
        "quantile_alpha": np.array(QUANTILES),
        "max_depth": 5,
        "eta": 0.08,
        "subsample": 0.9,
        "min_child_weight": 2,
        "nthread": 1,
        "seed": 0,
    }
    return xgboost.train(parameters, xgboost.QuantileDMatrix(rows, logarithms), num_boost_round=250)
