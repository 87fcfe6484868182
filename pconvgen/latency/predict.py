"""The latency of a network's layers, by a learned model."""

from __future__ import annotations

from pconvgen.frontend import Imported
from pconvgen.latency.model import Interval, LatencyModel
from pconvgen.targets.target import Target
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.describe import describe_choice, describe_places, describe_weight, describe_workload
from pconvgen.tuning.ranker import features


def predict(
    imported: Imported, target: Target, model: LatencyModel
) -> tuple[list[tuple[str, int, Interval]], list[str]]:
    """(layer, how many are alike, time of its default schedule) in program order, and the layers left out.

    The latter are those that two kernels compute.
    """
    tasks, split = tasks_of(imported, target)
    choices = [task.choices[0] for task in tasks]
    rows = [
        features(
            describe_workload(task.workload),
            describe_places(task.places),
            describe_weight(task.layer),
            describe_choice(choice),
            choice.cycles,
        )
        for task, choice in zip(tasks, choices, strict=True)
    ]
    found = model.predict(rows, [choice.cycles for choice in choices])
    return [(task.name, task.count, time) for task, time in zip(tasks, found, strict=True)], split
