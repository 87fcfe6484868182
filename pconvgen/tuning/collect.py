"""The tasks of a network: its layers in the layouts that they get, equal ones once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pconvgen.blame import attempt
from pconvgen.frontend import Imported
from pconvgen.pipeline import decide
from pconvgen.planning.choose import Layer, LayerPlan, plan_layer
from pconvgen.tuning.task import Task
from pconvgen.values.planes import Places
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.target import Target


def tasks_of(
    imported: Imported, target: Target, *, dense: bool = False, precision: Precision = FLOAT32
) -> tuple[list[Task], list[str]]:
    """The tasks of a model in program order, and the names of layers that stay as they are.

    The latter are split into two kernels, each of which would have to be tuned for itself.
    Raises PconvgenError with the layer when the model cannot be lowered.
    """
    found: dict[str, Task] = {}
    split: list[str] = []

    def planner(layer: Layer, target: Target, places: Places | None = None, **where: Any) -> LayerPlan:
        plan = plan_layer(layer, target, places, **where)
        if len(plan.instances) > 1:
            split.append(layer.name)
            return plan
        fused_op = replace(layer.fused_op, var=None, data=None, residual=None, result=None, absorbed=frozenset())
        task = Task(
            names=(layer.name,),
            layer=replace(layer, fused_op=fused_op),
            target=target,
            places=places,
            slots=where.get("slots"),
            first=where.get("first", (0, 0)),
        )
        known = found.get(task.key)
        found[task.key] = task if known is None else replace(known, names=(*known.names, layer.name))
        return plan

    def passed(module: Any) -> Any:
        return decide(module, target, dense=dense, precision=precision, planner=planner)

    attempt("lower", imported, lambda: passed(imported.module), passed)
    return list(found.values()), split
