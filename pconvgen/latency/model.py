"""A model of latency learned from records: how long a schedule of a layer takes on one target and kind of device.

Boosted trees (xgboost) predict by what factor the analytic model's cycles are wrong: its mean logarithm, and two
quantiles that are calibrated on layers that were left out.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.devices.units import SECONDS
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import write_text
from pconvgen.latency.features import features, matrix
from pconvgen.latency.ranker import examples, features_of
from pconvgen.records.describe import (
    Described,
    describe_choice,
    describe_places,
    describe_target,
    describe_workload,
)
from pconvgen.records.record import NetworkRecord, Record, target_key
from pconvgen.templates.choice import Choice, SplitChoice
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

FORMAT, VERSION = "pconvgen latency model", 2
OUTER = (0.1, 0.9)
"""Quantiles between which 80 % of the times lie."""
LEAST = 60
"""Records to learn from at least: as many as there are features."""
FOLDS = 5
"""Parts of the records that are left out, one after the other, to see how well they are predicted."""
ROUNDS = 250
"""Trees for each number."""


@dataclass(frozen=True)
class Interval:
    """A time in seconds: `middle` is expected, and 80 % lie between `low` and `high`."""

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
    columns: the features that were learned from, in their order.
    factors: of the logarithm of seconds by analytic cycles.
    batch: the largest of the records.
    formats: those of the records, as dicts of a Precision's.
    together: how many times longer networks take than their layers alone, added up: between layers there are other
        operators, and what a layer reads is not in the nearest cache.
    """

    target: Mapping[str, Any]
    device_class: str
    records: int
    tasks: int
    columns: tuple[str, ...]
    factors: Quantiles
    batch: int
    formats: Sequence[Mapping[str, str]]
    together: float

    def is_of(self, target: Target) -> bool:
        """Whether it was learned for that target."""
        return target_key(self.target) == target_key(describe_target(target))

    def check(self, target: Target) -> None:
        """Raises UsageError when it was learned for another target."""
        if not self.is_of(target):
            raise UsageError(
                "the latency model is of another target",
                found=target_key(self.target),
                expected=target_key(describe_target(target)),
                remedy="fit one to records of this target",
            )

    def check_device(self, device_class: str) -> None:
        """Raises UsageError when it was learned on another class of devices."""
        if self.device_class != device_class:
            raise UsageError(
                "the latency model is of another device",
                found=self.device_class,
                expected=device_class,
                remedy="fit one to records of this device",
            )

    def knows(self, workload: ConvWorkload) -> bool:
        """Whether anything like it was learned from: no larger batch, and in these formats."""
        return workload.batch <= self.batch and asdict(workload.precision) in self.formats

    def times(self, layer: Described, choices: Sequence[Choice]) -> list[Interval]:
        """The times of a layer that is computed in each of some ways."""
        rows = [features(*layer, describe_choice(choice), choice.cycles) for choice in choices]
        return self.predict(rows, [choice.cycles for choice in choices])

    def time(self, layer: Described, choice: Choice | SplitChoice) -> Interval:
        """The time of a layer that is computed in that way; of two kernels the sums."""
        if not isinstance(choice, SplitChoice):
            return self.times(layer, [choice])[0]
        *_, weight = layer
        parts = [
            (workload, part, {**weight, "nonzeros": part.candidate.nonzeros})
            for workload, part in zip(choice.workloads, choice.parts, strict=True)
        ]
        rows = [
            features(
                describe_workload(workload), describe_places(part.places), weight, describe_choice(part), part.cycles
            )
            for workload, part, weight in parts
        ]
        found = self.predict(rows, [part.cycles for _, part, _ in parts])
        return Interval(*(sum(getattr(time, end) for time in found) for end in ("low", "middle", "high")))

    def predict(self, rows: Sequence[Mapping[str, float]], cycles: Sequence[float]) -> list[Interval]:
        """The times of some trials, from their `features` and their analytic cycles."""
        factors = np.exp(self.factors.predict(matrix(rows, self.columns)))
        return [Interval(*(float(c * value) for value in f)) for c, f in zip(cycles, factors, strict=True)]

    def save(self, path: Path) -> None:
        """Writes it as JSON, the trees in xgboost's own format. Raises PconvgenError when that cannot be done."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "target": dict(self.target),
            "device_class": self.device_class,
            "records": self.records,
            "tasks": self.tasks,
            "columns": list(self.columns),
            "batch": self.batch,
            "formats": list(self.formats),
            "together": self.together,
            "widening": self.factors.widening,
            "middle": _packed(self.factors.middle),
            "outer": _packed(self.factors.outer),
        }
        write_text(path, json.dumps(data) + "\n")

    @staticmethod
    def load(path: Path) -> LatencyModel:
        """The inverse of `save`.

        Raises
        ------
        PconvgenError: the file cannot be read, is something else, damaged, or of another version.
        """
        import xgboost

        try:
            data = json.loads(path.read_text())
            if data["format"] != FORMAT or data["version"] != VERSION:
                raise ValueError(f"{data['format']}, version {data['version']}")
            factors = Quantiles(_unpacked(data["middle"]), _unpacked(data["outer"]), float(data["widening"]))
            return LatencyModel(
                target=data["target"],
                device_class=data["device_class"],
                records=data["records"],
                tasks=data["tasks"],
                columns=tuple(data["columns"]),
                factors=factors,
                batch=int(data["batch"]),
                formats=data["formats"],
                together=float(data["together"]),
            )
        except OSError as error:
            raise PconvgenError("the latency model cannot be read", file=path, found=error.strerror) from error
        except (ValueError, KeyError, TypeError, zlib.error, xgboost.core.XGBoostError) as error:
            raise PconvgenError(
                "no latency model",
                file=path,
                found=str(error).splitlines()[0],
                expected=f"what `pconvgen latency fit` wrote, version {VERSION}",
                remedy="fit it again",
            ) from error


def _packed(booster: Any) -> str:
    return base64.b64encode(zlib.compress(bytes(booster.save_raw("ubj")))).decode()


def _unpacked(text: str) -> Any:
    import xgboost

    # Its threads wait for each other longer than a few rows take, above all on a busy machine.
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(zlib.decompress(base64.b64decode(text))))
    return booster


def fit(records: Sequence[Record], networks: Sequence[NetworkRecord] = ()) -> LatencyModel:
    """A model of the target and device class that has most of the records. Raises what `most` raises."""
    mine = most(records)
    ratios = [network.cost / network.layers for network in networks if network.where == mine[0].where]
    tasks = [record.task for record in mine]
    return LatencyModel(
        target=mine[0].target,
        device_class=mine[0].device_class,
        records=len(mine),
        tasks=len(set(tasks)),
        columns=tuple(features_of(mine[0])),
        factors=learn(*examples(mine), tasks),
        batch=max(record.workload["batch"] for record in mine),
        formats=[dict(kinds) for kinds in sorted({tuple(r.workload["precision"].items()) for r in mine})],
        together=median(ratios) if ratios else 1.0,
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


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Boosted trees that predict numbers, and between which others they lie.

    Attributes
    ----------
    middle, outer: xgboost's, of the expected number and of the quantiles around it. With few records a mean is learned
        better than a median.
    widening: by how much the outer ones are moved outwards.
    """

    middle: Any
    outer: Any
    widening: float

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Low, middle and high for each row."""
        import xgboost

        data = xgboost.DMatrix(rows, nthread=1)
        middle = np.asarray(self.middle.predict(data), np.float64)
        outer = np.asarray(self.outer.predict(data), np.float64).reshape(len(rows), len(OUTER))
        low, high = outer.min(axis=1) - self.widening, outer.max(axis=1) + self.widening
        return np.stack([np.minimum(low, middle), middle, np.maximum(high, middle)], axis=1)


def learn(rows: NDArray[np.float64], numbers: NDArray[np.float64], groups: Sequence[str]) -> Quantiles:
    """Trees for the quantiles of some numbers; the same for equal data.

    What trees say of rows that they have seen is too good. Each group is therefore predicted from the others, and the
    outer quantiles are moved until they hold as many of these as they should: conformalized quantile regression
    (Romano, Patterson, Candes, NeurIPS 2019), with whole groups left out.
    """
    found = np.zeros((len(rows), 3))
    for held in folds(groups):
        found[held] = train(rows[~held], numbers[~held]).predict(rows[held])
    beyond = np.maximum(found[:, 0] - numbers, numbers - found[:, -1])
    widening = float(np.quantile(beyond, OUTER[1] - OUTER[0]))
    return replace(train(rows, numbers), widening=max(0.0, widening))


def folds(groups: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Masks of rows that are left out together: each row once, groups as a whole."""
    names = sorted(set(groups))
    np.random.default_rng(0).shuffle(names)
    number = {name: index % FOLDS for index, name in enumerate(names)}
    mine = np.array([number[name] for name in groups])
    for fold in range(min(FOLDS, len(names))):
        yield mine == fold


def train(rows: NDArray[np.float64], numbers: NDArray[np.float64]) -> Quantiles:
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
    quantiles = {"objective": "reg:quantileerror", "quantile_alpha": np.array(OUTER), **shared}
    data = xgboost.QuantileDMatrix(rows, numbers, nthread=1)
    middle = xgboost.train({"objective": "reg:squarederror", **shared}, data, num_boost_round=ROUNDS)
    return Quantiles(middle, xgboost.train(quantiles, data, num_boost_round=ROUNDS), 0.0)
