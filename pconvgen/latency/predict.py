"""The latency of a network's layers, by a learned model."""

from __future__ import annotations

from pconvgen.frontend import Imported
from pconvgen.latency.model import Interval, LatencyModel
from pconvgen.targets.target import Target
from pconvgen.tuning.collect import tasks_of


def predict(
    imported: Imported, target: Target, model: LatencyModel
) -> tuple[list[tuple[str, int, Interval]], list[str]]:
    """(layer, how many are alike, time of its default schedule) in program order, and the layers left out.

    The latter are those that two kernels compute.
    """
    tasks, split = tasks_of(imported, target)
    times = [model.time(task.layer, task.places, task.choices[0]) for task in tasks]
    return [(task.name, task.count, time) for task, time in zip(tasks, times, strict=True)], split
