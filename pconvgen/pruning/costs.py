"""What layers and the network cost by density, for each kind of budget."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from pconvgen.compiler import compile as compile_model
from pconvgen.devices import Device, get_device
from pconvgen.devices.units import SECONDS
from pconvgen.errors import PconvgenError, UsageError, last_line
from pconvgen.files import check_writable, write_json
from pconvgen.frontend import load_model
from pconvgen.planning.experience import Experience, experience
from pconvgen.pruning.allocation import NetworkCosts
from pconvgen.pruning.budget import Latency, Macs, Size
from pconvgen.pruning.constraint import Constraint, as_computed
from pconvgen.pruning.layers import PrunableWeight
from pconvgen.sparsity import DENSE, candidates, project, smallest
from pconvgen.targets.presets import get_target
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.task import Task
from pconvgen.whatif.curve import LatencyCurve, added, curve
from pconvgen.whatif.layer_curves import Pruned, pruned_layer
from pconvgen.whatif.measuring import measured

MEASUREMENT_S = 0.1
MEASUREMENTS = 3
"""Of a network: something else may be at work on the device during one of them."""
BYTES = 4
"""Of a weight, float32."""


def costs_of(
    budget: Macs | Size | Latency,
    constraints: Sequence[Constraint],
    layers: Sequence[PrunableWeight],
    program: Any,
    report: Callable[[str], None] = lambda _: None,
) -> NetworkCosts:
    """The costs of a network whose layers are pruned as the constraints say.

    Parameters
    ----------
    constraints: of the layers that are pruned.
    layers: all layers.
    program: the network, an ExportedProgram.
    report: told the layer that is looked at.

    Raises
    ------
    UsageError: nothing is known of times on the target.
    PconvgenError: the network cannot be compiled or measured.
    """
    if isinstance(budget, Latency):
        return _kept_costs(budget, constraints, program, report)
    dense: Callable[[PrunableWeight], float] = (lambda layer: layer.macs) if isinstance(budget, Macs) else _dense_bytes
    pruned = {constraint.name for constraint in constraints}
    fixed = sum(dense(layer) for layer in layers if layer.name not in pruned)
    curves = {}
    for constraint in constraints:
        full = dense(constraint.layer)
        if isinstance(budget, Size):
            full *= _with_indices(constraint)
        low, high = constraint.lowest, constraint.highest
        curves[constraint.name] = LatencyCurve((low, high), (low * full, high * full))
    if isinstance(budget, Macs):
        return NetworkCosts(budget.count, "multiply-accumulates", fixed, curves)
    return NetworkCosts(budget.nbytes, "bytes", fixed, curves)


def _dense_bytes(layer: PrunableWeight) -> float:
    return BYTES * layer.parameter.numel()


def _with_indices(constraint: Constraint) -> float:
    """Bytes of weights and indices, by those of the weights that are left."""
    layer = constraint.layer
    weight = project(constraint.structure, layer.weight(), 0.25, groups=layer.groups, **constraint.params)
    found = smallest([c for c in candidates(weight, layer.groups) if c.structure == constraint.structure])
    return found.stored * (1 + 1 / (found.taps * min(found.unit, 8))) / max(1, found.nonzeros)


def device_of(budget: Latency) -> Device | None:
    """Where a budget is measured; None where it is predicted."""
    if budget.device is not None:
        return get_device(budget.device)
    return get_device("local") if get_target(budget.target).is_host and budget.model is None else None


def measure_ms(program: Any, budget: Latency, device: Device) -> float:
    """What the network takes now: compiled, and measured as `pconvgen bench` does it, the median of some times."""
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        compiled = compile_model(program, budget.target)
        model = compiled.manifest.model(compiled.export(Path(folder) / "model.so"))
        inputs = compiled.manifest.random_inputs(0)
        with device.session() as ready:
            found = [ready.bench(model, inputs, seconds=MEASUREMENT_S).median_ms for _ in range(MEASUREMENTS)]
    return median(ms for ms in found if ms is not None)  # devices without a clock were refused


def _kept_costs(
    budget: Latency, constraints: Sequence[Constraint], program: Any, report: Callable[[str], None]
) -> NetworkCosts:
    """The costs in the file that keeps them, which is written where it is not there."""
    if budget.curves is None:
        return _latency_costs(budget, constraints, program, report)
    path = Path(budget.curves)
    # Multiply-accumulates tell layers of the same shape apart that see images of another size.
    layers = {c.name: [c.structure, list(c.layer.shape), c.layer.macs, c.fixed] for c in constraints}
    model = None if budget.model is None else str(budget.model)
    about = {"target": budget.target, "device": budget.device, "model": model, "layers": layers}
    if not path.exists():
        check_writable(path)
        found = _latency_costs(budget, constraints, program, report)
        write_json(path, {"about": about, "costs": found.to_json()})
        return found
    try:
        data = json.loads(path.read_text())
        known, found = data["about"], NetworkCosts.from_json(data["costs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PconvgenError("this file keeps no curves", file=path, found=last_line(error)) from error
    if known != about:
        raise UsageError(
            "these curves are of other layers, or of another target",
            file=path,
            found=", ".join(name for name in about if known.get(name) != about[name]),
            remedy="remove the file, or name another one",
        )
    return replace(found, budget=budget.ms)


def _latency_costs(
    budget: Latency, constraints: Sequence[Constraint], program: Any, report: Callable[[str], None]
) -> NetworkCosts:
    target, device = get_target(budget.target), device_of(budget)
    known = experience(target, latency=None if budget.model is None else Path(budget.model))
    with ExitStack() as stack:
        cost: Callable[[Pruned], float] = _predicted
        if device is not None:
            unit, cost = stack.enter_context(measured(device, target))
            if unit != SECONDS:
                raise UsageError(
                    "there is no clock on that device", found=budget.device, remedy="name one with a clock"
                )
        elif known.model is None:
            raise UsageError(
                "nothing was learned of times on this target",
                found=target.name,
                remedy="name a device to measure layers on, or give a model of latency, see pconvgen latency fit",
            )
        tasks, _ = tasks_of(load_model(program), target, dense=True)
        fixed, curves = _curves(constraints, tasks, known, cost, report)
    scale = 1.0 if known.model is None else known.model.together
    return NetworkCosts(budget.ms, "ms", fixed, curves, scale)


def _predicted(pruned: Pruned) -> float:
    if pruned.time is None:
        raise UsageError(
            "the model of latency does not know such layers",
            layer=pruned.task.name,
            remedy="give a model that was learned from records of this network, or a device to measure on",
        )
    return pruned.time.middle


def _curves(
    constraints: Sequence[Constraint],
    tasks: Sequence[Task],
    known: Experience,
    cost: Callable[[Pruned], float],
    report: Callable[[str], None],
) -> tuple[float, dict[str, LatencyCurve]]:
    """Milliseconds of what is not pruned, and of each pruned layer over its density."""
    fixed = 0.0
    by_use = {use.name: constraint for constraint in constraints for use in constraint.layer.uses}
    found: dict[str, list[LatencyCurve]] = {constraint.name: [] for constraint in constraints}
    for task in tasks:
        report(task.name)
        # Layers that are alike may be pruned differently.
        kinds: dict[str, list[Constraint | None]] = {}
        for name in task.names:
            kinds.setdefault(_key(by_use.get(name)), []).append(by_use.get(name))
        for mine in kinds.values():
            if mine[0] is None:
                fixed += len(mine) * 1e3 * cost(pruned_layer(task, DENSE, {}, 1.0, known))
                continue
            first = mine[0]
            structure, params = as_computed(first, task.layer.fused_op)

            def at(density: float, task: Task = task, structure: str = structure, params: Any = params) -> float:
                return 1e3 * cost(pruned_layer(task, structure, params, density, known))

            made = curve(at, first.lowest, first.highest)
            for constraint in mine:
                if constraint is not None:
                    found[constraint.name].append(made)
    # What the compiler does not see as a layer costs nothing that pruning could change.
    return fixed, {name: added(mine) for name, mine in found.items() if mine}


def _key(constraint: Constraint | None) -> str:
    """Equal for layers that may share a curve: which patterns they have hardly matters."""
    if constraint is None:
        return ""
    params = {name: len(value) if name == "patterns" else value for name, value in constraint.params.items()}
    return f"{constraint.structure} {params} {constraint.fixed}"
