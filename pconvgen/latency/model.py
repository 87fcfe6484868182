"""A model of latency learned from records: how long a schedule of a layer takes on one target and kind of device.

Boosted trees (xgboost) predict by what factor the analytic model's cycles are wrong: its mean logarithm, and two
quantiles that are calibrated on layers that were left out.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pconvgen.devices.units import SECONDS
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.files import write_text
from pconvgen.latency.features import features, matrix
from pconvgen.latency.quantiles import Quantiles, learn
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
LEAST, LEAST_MORE = 60, 10
"""Records to learn from at least: as many as there are features; where there is a model of another device, fewer."""


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
    error: median error for layers that were left out, as a share; None where it was not kept.
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
    error: float | None = None

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
            "error": self.error,
            "widening": self.factors.widening,
            "shift": self.factors.shift,
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
            # Models that were learned before others were gone on from have no shift.
            widening, shift = float(data["widening"]), float(data.get("shift", 0.0))
            factors = Quantiles(_unpacked(data["middle"]), _unpacked(data["outer"]), widening, shift)
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
                error=data.get("error"),
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


def fit(
    records: Sequence[Record], networks: Sequence[NetworkRecord] = (), bases: Sequence[LatencyModel] = ()
) -> LatencyModel:
    """A model of the target and device class that has most of the records.

    It goes on from one of `bases`, models of other devices, where that predicts layers that are left out better than
    what these records teach alone. Raises what `most` raises.
    """
    mine = most(records, LEAST_MORE if bases else LEAST)
    ratios = [network.cost / network.layers for network in networks if network.where == mine[0].where]
    usual = [base.together for base in bases]
    tasks = [record.task for record in mine]
    rows, logarithms = [features_of(record) for record in mine], examples(mine)[1]
    ways = [(tuple(rows[0]), None), *((base.columns, base.factors) for base in bases)]
    found = [(learn(matrix(rows, columns), logarithms, tasks, base), columns) for columns, base in ways]
    learned, columns = min(found, key=lambda pair: pair[0].error)
    return LatencyModel(
        target=mine[0].target,
        device_class=mine[0].device_class,
        records=len(mine),
        tasks=len(set(tasks)),
        columns=columns,
        factors=learned.factors,
        batch=max(record.workload["batch"] for record in mine),
        formats=[dict(kinds) for kinds in sorted({tuple(r.workload["precision"].items()) for r in mine})],
        together=median(ratios or usual or [1.0]),
        error=learned.error,
    )


def most(records: Sequence[Record], least: int = LEAST) -> list[Record]:
    """Those of the target and device class that has most of them; failures and counts teach nothing about time.

    Raises
    ------
    PconvgenError: there are fewer than `least`, too few to learn from.
    """
    timed = [record for record in records if record.cost is not None and record.unit == SECONDS]
    by_where: dict[tuple[str, str], list[Record]] = {}
    for record in timed:
        by_where.setdefault(record.where, []).append(record)
    mine = max(by_where.values(), key=len, default=[])
    if len(mine) < least:
        raise PconvgenError(
            "too few records to learn from",
            found=f"{len(mine)} timed ones of one target and device",
            expected=f"{least} at least",
            remedy="measure longer: pconvgen calibrate, or pconvgen tune on more models",
        )
    return mine
