"""The latency of each layer of a network over its density, before anyone trains it: what ALCS prunes against.

A layer's weight is pruned by magnitude to a density; its time is that of the record it has, else what the learned model
predicts, else, where nothing was learned of the device, the analytic model's cycles. Its input lies in the layout that
is best for that density, as it would in a network that is pruned to it; its output where the network has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pconvgen.frontend import Imported
from pconvgen.latency.model import Interval
from pconvgen.planning.choose import Layer, layer_of, predicted
from pconvgen.planning.experience import Experience
from pconvgen.sparsify import fitting
from pconvgen.sparsity import DENSE, project
from pconvgen.templates.choice import Choice
from pconvgen.templates.layout.proposals import layouts
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.task import Task
from pconvgen.values.planes import Places
from pconvgen.whatif.curve import LatencyCurve, curve

LOWEST = 0.05
"""Where curves begin; with fewer weights, filters and channels vanish."""
SOURCES = 2
"""Layouts of the input, of those the analytic model likes best, among which a layer's time is the lowest."""


@dataclass(frozen=True)
class LayerCurve:
    """One layer, or several that are alike.

    Attributes
    ----------
    name: of the first of them.
    count: how many there are in the network.
    structure: what the layer can be pruned to that is nearest to what was asked for; "dense" where nothing applies.
    curve: its time, or cycles, over density.
    """

    name: str
    count: int
    structure: str
    curve: LatencyCurve

    @property
    def dense(self) -> float:
        """Without zeros."""
        return self.curve.costs[-1]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "count": self.count,
            "structure": self.structure,
            "densities": list(self.curve.densities),
            "costs": list(self.curve.costs),
        }


@dataclass(frozen=True, eq=False)
class Pruned:
    """A layer at one density, and how it is computed fastest.

    Attributes
    ----------
    task: the layer in the layouts that were chosen.
    choice: its encoding and schedule.
    time: None where nothing was measured on such a device.
    """

    task: Task
    choice: Choice
    time: Interval | None

    @property
    def cost(self) -> float:
        """Seconds where they are known, else cycles."""
        return self.choice.cycles if self.time is None else self.time.middle


def layer_curves(
    imported: Imported,
    structure: str,
    experience: Experience,
    *,
    lowest: float = LOWEST,
    cost: Callable[[Pruned], float] = lambda pruned: pruned.cost,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[LayerCurve, ...]:
    """The curve of every layer, in the order of the network; layers that are alike share one.

    Parameters
    ----------
    structure: key of STRUCTURES; where it does not apply to a layer, see `fitting`.
    experience: knows times of the target.
    lowest: density at which curves begin.
    cost: of a layer at a density; by default what is known of it.
    report: told the layer that is looked at.

    Raises
    ------
    PconvgenError: the model cannot be lowered.
    """
    tasks, _ = tasks_of(imported, experience.target, dense=True)
    found = []
    for task in tasks:
        report(task.name)
        fused_op = task.layer.fused_op
        kind, params, _ = fitting(fused_op.op, fused_op.weight.shape, fused_op.workload.groups, structure)
        ends = (1.0, 1.0) if kind == DENSE else (lowest, 1.0)

        def at(density: float, task: Task = task, kind: str = kind, params: dict[str, int] = params) -> float:
            return cost(pruned_layer(task, kind, params, density, experience))

        found.append(LayerCurve(task.name, task.count, kind, curve(at, *ends)))
    return tuple(found)


def pruned_layer(task: Task, structure: str, params: dict[str, int], density: float, experience: Experience) -> Pruned:
    """A layer at a density, in the best of the layouts that its input may have."""
    fused_op = task.layer.fused_op
    weight = fused_op.weight
    if density < 1:
        weight = project(structure, weight, density, groups=fused_op.workload.groups, **params)
    # By one kernel: what two are split by is not a matter of density.
    layer = replace(layer_of(replace(fused_op, weight=np.ascontiguousarray(weight, np.float32)), task.name), splits=())
    best = [
        _known(replace(task, layer=layer, places=places), experience)
        for places in _nearest(layer, task.places, experience)
    ]
    return min(best, key=lambda pruned: pruned.cost)


def _nearest(layer: Layer, places: Places | None, experience: Experience) -> list[Places | None]:
    """The best layouts of the input by the analytic model."""
    if places is None:
        return [None]
    target = experience.target
    options = [replace(places, source=source) for source in layouts(layer.fused_op.workload, target.core.isa)]
    return sorted(options, key=lambda option: predicted(layer, target, option).choice.cycles)[:SOURCES]  # type: ignore[return-value]


def _known(task: Task, experience: Experience) -> Pruned:
    chosen, time = experience.choose(task.layer, experience.target, task.places)
    assert isinstance(chosen.choice, Choice)
    return Pruned(replace(task, slots=None, first=(0, 0)), chosen.choice, time)
