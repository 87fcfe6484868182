"""`structure="auto"`: which structure is worth it for each layer, by what is known of its costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pconvgen.frontend import load_model
from pconvgen.planning.experience import experience
from pconvgen.pruning.constraint import as_computed, constrain
from pconvgen.pruning.layers import PrunableWeight
from pconvgen.sparsity import STRUCTURES
from pconvgen.tuning.collect import tasks_of
from pconvgen.values.target import Target
from pconvgen.whatif.layer_curves import pruned_layer

NEAR = 1.1
"""Of structures that cost less than this many times the cheapest, the one that keeps most of a weight is taken."""


def auto_structures(
    layers: Sequence[PrunableWeight], program: Any, target: Target, density: float, patterns: Any
) -> dict[str, str]:
    """Layer -> the structure that costs least at a density, by records, the learned model or the analytic one.

    Layers that the compiler does not see as such are left out.
    """
    known = experience(target)
    tasks = {name: task for task in tasks_of(load_model(program), target, dense=True)[0] for name in task.names}
    found = {}
    for layer in layers:
        task = tasks.get(layer.name)
        if task is None:
            continue
        costs, kept = {}, {}
        for name in _options(layer):
            constraint = constrain(layer, name, patterns, None)
            share = constraint.share(density)
            costs[name] = pruned_layer(task, *as_computed(constraint, task.layer.fused_op), share, known).cost
            kept[name] = _kept(layer, constraint.units().mask(share))
        near = [name for name in costs if costs[name] <= NEAR * min(costs.values())]
        found[layer.name] = max(near, key=kept.__getitem__)
    return found


def _options(layer: PrunableWeight) -> tuple[str, ...]:
    """What is chosen from, by the kind of layer."""
    shape, depthwise = layer.weight().shape, layer.is_depthwise
    return tuple(name for name, row in STRUCTURES.items() if row.is_promising(shape, depthwise=depthwise))


def _kept(layer: PrunableWeight, mask: Any) -> float:
    return float(np.square(layer.weight()[mask], dtype=np.float64).sum())
