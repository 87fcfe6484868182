"""What was measured before, where a compiler asks what to do with a layer and how long that takes.

A layer that has records gets the fastest of them, with its time; for another one, a model that was learned from
records chooses and predicts the time, with an interval. Both are of exactly this target and of one class of devices;
where there is neither, the analytic model chooses and nothing is said of times.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import nsmallest
from pathlib import Path
from statistics import quantiles
from typing import Any

from pconvgen.devices import get_device
from pconvgen.devices.units import CYCLES, SECONDS, cost_text
from pconvgen.errors import PconvgenError, PconvgenWarning
from pconvgen.latency.model import Interval, LatencyModel
from pconvgen.planning.choose import Layer, LayerPlan, ReasonedChoice, plan_layer, predicted
from pconvgen.planning.search import all_choices
from pconvgen.records.describe import (
    describe_choice,
    describe_target,
)
from pconvgen.records.facts import device_name
from pconvgen.records.kept import kept_model, kept_models
from pconvgen.records.record import Record, device_class, target_key, task_key
from pconvgen.records.store import NEAR, ranked, read_records
from pconvgen.schedules.cores import CORES
from pconvgen.schedules.measured import latency_of, records_of
from pconvgen.templates.choice import Choice
from pconvgen.values.planes import Places
from pconvgen.values.precision import Precision
from pconvgen.values.target import Target

PROMISING = 60
"""Schedules among which the learned model chooses: those that the analytic one likes best."""
GAIN = 1.02
"""How many times faster the learned model has to find a schedule for taking it instead of the analytic model's."""


@dataclass(frozen=True, eq=False)
class Experience:
    """A planner (see `plan_layer`) that knows what was measured.

    Attributes
    ----------
    target: what is compiled for.
    device_class: where times were measured, or would have been.
    records: of this target and class.
    model: predicts the times of layers that have no record; None where there is none for this target and class.
    """

    target: Target
    device_class: str
    records: tuple[Record, ...]
    model: LatencyModel | None

    @property
    def timing(self) -> str:
        """Where the times of layers without records come from, or why there are none."""
        if self.model is not None:
            kinds = ", ".join(str(Precision.from_json(kinds)) for kinds in self.model.formats)
            seen = f"batch {self.model.batch} at most, {kinds}"
            return f"times learned from {self.model.records} records of {self.device_class} ({seen})"
        where = f"{self.target.name} on {self.device_class}"
        return f"no times: nothing was learned of {where}; pconvgen calibrate measures it"

    @cached_property
    def _by_task(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.task, []).append(record)
        return {task: ranked(mine) for task, mine in found.items()}

    def __call__(self, layer: Layer, target: Target, places: Places | None = None, **where: Any) -> LayerPlan:
        """The plan of a layer; see `plan_layer`."""
        chosen, time = self.choose(layer, target, places)
        plan = plan_layer(layer, target, places, **where, chosen=chosen)
        if time is None:
            return plan
        timed = replace(plan.decision, predicted_ms=1e3 * time.middle, interval_ms=(1e3 * time.low, 1e3 * time.high))
        return replace(plan, decision=timed)

    def choose(self, layer: Layer, target: Target, places: Places | None) -> tuple[ReasonedChoice, Interval | None]:
        """How a layer is computed, and its time: by records, by the learned model, or by the analytic one."""
        if self.records:
            measured = self._measured(layer, target, places)
            if measured is not None:
                return measured
        analytic = predicted(layer, target, places)
        if self.model is None or not self.model.knows(layer.fused_op.workload):
            return analytic, None
        return self._learned(self.model, analytic, layer, target, places)

    def _learned(
        self, model: LatencyModel, analytic: ReasonedChoice, layer: Layer, target: Target, places: Places | None
    ) -> tuple[ReasonedChoice, Interval]:
        """The fastest by the learned model, where it is so by more than predictions are off."""
        found = all_choices(layer.fused_op.workload, layer.candidates, target.core, places, families=layer.families)
        promising = nsmallest(PROMISING, found, key=lambda choice: choice.cycles)
        described = layer.described(places)
        times = model.times(described, promising)
        best = min(range(len(times)), key=lambda number: times[number].middle)
        usual = model.time(described, analytic.choice)
        gain = usual.middle / times[best].middle
        # Of what was learned from few records, differences that are smaller than its errors say nothing.
        if gain < max(GAIN, 1 + (model.error or 0.0)):
            return analytic, usual
        return ReasonedChoice(promising[best], f"learned: {gain:.2f}x faster than {analytic.choice}"), times[best]

    def _measured(
        self, layer: Layer, target: Target, places: Places | None
    ) -> tuple[ReasonedChoice, Interval | None] | None:
        """The fastest record; where it is not legal any more, one that is hardly slower."""
        key = task_key(*layer.described(places))
        mine = self._by_task.get(key, [])
        for record in mine:
            if (record.cost or 0.0) > NEAR * (mine[0].cost or 0.0):
                break
            choice = find_choice(record, layer, target, places)
            if choice is not None:
                return ReasonedChoice(choice, _reason(record, len(mine))), _interval(record)
        return None


def experience(target: Target, records: Path | None = None, latency: Path | None = None) -> Experience:
    """What is known of a target, from a file of records, a learned model, and for the rest what pconvgen brings.

    For the host only what was measured on this machine's processor counts; for another target, what was measured on
    the class of devices that the model is of, else of which `records` has most, else that was calibrated last, else of
    which pconvgen brings most. A calibration goes before a model that pconvgen brings.

    Parameters
    ----------
    records: what `pconvgen tune` wrote; a layer that it has is looked up in it only. One without a record that counts
        is warned of.
    latency: what `pconvgen latency fit` wrote.

    Raises
    ------
    PconvgenError: a file cannot be read.
    UsageError: the model is of another target, or another device than this machine.
    """
    own = [] if records is None else [record for record in read_records(records) if _is_of(record, target)]
    brought = (record for path in records_of(target.core.isa.name) for record in read_records(path))
    came = [record for record in brought if _is_of(record, target)]
    model = None if latency is None else LatencyModel.load(latency)
    if model is not None:
        model.check(target)
    if target.is_host:
        where = host_class()
        if model is not None:
            model.check_device(where)
    else:
        known_class = model.device_class if model is not None else _most_common(own) or _calibrated(target)
        where = known_class or _most_common(came) or "any device"
    model = model or model_of(target, where)
    own = [record for record in own if record.device_class == where]
    if records is not None and not own:
        warnings.warn(
            f"{records}: no record is of {target.name} on this kind of device; it changes nothing",
            PconvgenWarning,
            stacklevel=3,
        )
    tasks = {record.task for record in own}
    rest = [record for record in came if record.device_class == where and record.task not in tasks]
    return Experience(target, where, (*own, *rest), model)


def host_class() -> str:
    """The class of devices that this machine is of, as one thread sees it."""
    return device_class(device_name(get_device("local")), 1)


def model_of(target: Target, where: str) -> LatencyModel | None:
    """What was learned of a target on a class of devices: by this user's calibration, else by what pconvgen brings."""
    paths = (kept_model(target, where), latency_of(target.core.isa.name, target.cpu))
    found = (_found(path, target, where) for path in paths if path is not None and path.is_file())
    return next((model for model in found if model is not None), None)


def _found(path: Path, target: Target, where: str) -> LatencyModel | None:
    """The model of a file that nobody named, if it is of that target and class and this xgboost can read it."""
    try:
        model = LatencyModel.load(path)
    except PconvgenError as error:
        warnings.warn(f"{error.message}: {error.file}; it changes nothing", PconvgenWarning, stacklevel=4)
        return None
    return model if model.is_of(target) and model.device_class == where else None


def _calibrated(target: Target) -> str | None:
    """The class of the devices of a target that were calibrated last."""
    for path in kept_models(target):
        with suppress(PconvgenError):
            return LatencyModel.load(path).device_class
    return None


def _is_of(record: Record, target: Target) -> bool:
    return record.cost is not None and target_key(record.target) == target_key(describe_target(target))


def _most_common(records: Iterable[Record]) -> str | None:
    classes = [record.device_class for record in records]
    return max(classes, key=classes.count, default=None)


def find_choice(record: Record, layer: Layer, target: Target, places: Places | None) -> Choice | None:
    """The choice that a record is about; None where the layer has no such encoding or the schedule is not legal."""
    trial, core = record.trial, target.core
    candidates = [candidate for candidate in layer.candidates if candidate.structure == trial["structure"]]
    # Which legal schedules are looked at follows the caches: a record of before the core had a row of its own may be of
    # one that the generic row's caches ask for, and has its cycles.
    for known in dict.fromkeys((core, replace(CORES[core.isa.name], l2_kib=core.l2_kib))):
        found = all_choices(layer.fused_op.workload, candidates, known, places, families=layer.families)
        choice = next((choice for choice in found if describe_choice(choice) == trial), None)
        if choice is not None:
            return choice
    return None


def _reason(record: Record, count: int) -> str:
    assert record.cost is not None
    how = "estimated" if record.unit == CYCLES else "measured"
    trials = f", the best of {count} trials" if count > 1 else ""
    return f"{how}: {cost_text(record.cost, record.unit)}{trials} on {record.device_class}"


def _interval(record: Record) -> Interval | None:
    """The time of a record, if that is what was measured."""
    if record.unit != SECONDS:
        return None
    assert record.cost is not None
    tenths = quantiles(record.repeats, n=10, method="inclusive") if len(record.repeats) > 1 else [record.cost] * 9
    return Interval(tenths[0], record.cost, tenths[-1])
