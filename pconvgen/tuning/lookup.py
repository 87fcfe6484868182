"""Records as choices: what was measured for a layer, where a compiler asks what to do with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pconvgen.devices import Device
from pconvgen.passes.choose import Layer, LayerPlan, Measured, Planner, isa_of, plan_layer
from pconvgen.schedules.default import Choice, all_choices
from pconvgen.targets.target import Target
from pconvgen.templates.planes import Places
from pconvgen.tuning.describe import (
    describe_choice,
    describe_places,
    describe_target,
    describe_weight,
    describe_workload,
)
from pconvgen.tuning.facts import device_class
from pconvgen.tuning.record import INSTRUCTIONS, Record, target_key, task_key


def recorded_planner(records: Iterable[Record], target: Target, device: Device | None = None) -> tuple[Planner, int]:
    """What plans layers by the fastest record of each, and by prediction where there is none; and the records it has.

    Only records of exactly this target count, and among those only of the class of `device`; without a device, of the
    class that has most of them.
    """
    mine = [r for r in records if r.cost is not None and target_key(r.target) == target_key(describe_target(target))]
    if device is None:
        counts: dict[str, int] = {}
        for record in mine:
            counts[record.device_class] = counts.get(record.device_class, 0) + 1
        wanted = max(counts, key=lambda name: counts[name], default=None)
        mine = [record for record in mine if record.device_class == wanted]
    else:
        mine = [record for record in mine if record.device["class"] == device_class(device) and record.threads == 1]
    by_task: dict[str, list[Record]] = {}
    for record in mine:
        by_task.setdefault(record.task, []).append(record)

    def planner(layer: Layer, target: Target, places: Places | None = None, **where: Any) -> LayerPlan:
        key = task_key(describe_workload(layer.site.workload), describe_places(places), describe_weight(layer))
        measured = _measured(by_task.get(key, []), layer, target, places)
        return plan_layer(layer, target, places, **where, measured=measured)

    return planner, len(mine)


def _measured(records: list[Record], layer: Layer, target: Target, places: Places | None) -> Measured | None:
    """The fastest record that is still legal, as a choice."""
    ordered = sorted(records, key=lambda record: record.cost or 0.0)
    for record in ordered:
        choice = find_choice(record, layer, target, places)
        if choice is not None:
            return Measured(choice, _reason(record, len(records)))
    return None


def find_choice(record: Record, layer: Layer, target: Target, places: Places | None) -> Choice | None:
    """The choice that a record is about; None where the layer has no such encoding or the schedule is not legal."""
    trial = record.trial
    candidates = [candidate for candidate in layer.candidates if candidate.structure == trial["structure"]]
    found = all_choices(
        layer.site.workload, candidates, isa_of(layer, target), target.l2_kib, places, winograd=layer.winograd
    )
    return next((choice for choice in found if describe_choice(choice) == trial), None)


def _reason(record: Record, count: int) -> str:
    assert record.cost is not None
    cost = f"{record.cost:.0f} instructions" if record.unit == INSTRUCTIONS else f"{1e3 * record.cost:.3f} ms"
    return f"measured: {cost}, the best of {count} trial{'s' if count > 1 else ''} on {record.device_class}"
