"""What all pruners have in common: layers, structures, a budget, hard masks, export."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pconvgen.errors import PconvgenWarning, UsageError
from pconvgen.frontend.torch import weights as torch_weights
from pconvgen.pruning.allocation import NetworkCosts
from pconvgen.pruning.budget import Budget, Density, Latency
from pconvgen.pruning.constraint import check_structure
from pconvgen.pruning.costs import device_of, measure_ms
from pconvgen.pruning.guard import Guard
from pconvgen.pruning.layers import exported, layers_of, unwrapped
from pconvgen.pruning.log import Callback, StepLog
from pconvgen.pruning.masks import Masks
from pconvgen.pruning.meet import meet
from pconvgen.pruning.plan import Request, plan
from pconvgen.pruning.ranks import on_first_rank
from pconvgen.sparsify import PrunedLayer
from pconvgen.sparsity import DENSE, Units, Weight, density
from pconvgen.sparsity.units import check_density

CALIBRATIONS = 2
"""Times that a network is measured, pruned by magnitude, to know what it takes beside its layers."""
TINY = 1e-30
"""Stands for the norm of a weight that is zero."""


class Pruner:
    """Prunes the layers of a model to structures that the compiler makes fast.

    Parameters
    ----------
    model: any module that torch.export can trace; DistributedDataParallel and torch.compile around it are looked
        through. Its weights are changed in place.
    example_inputs: arguments of its forward, of the batch size that the network will be compiled for.
    structure: key of pconvgen.sparsity.STRUCTURES, N:M such as 2:4, `auto` for what is worth it for each layer, or a
        dict with one of these for each glob of layer names.
    budget: Density, Macs, Size or Latency.
    include: globs of the layers to prune; all but the first convolution and the last linear layer without it.
    exclude: globs of layers to leave out of these.
    densities: glob -> share of the weights of such layers to keep, whatever the budget.
    patterns: how many patterns each layer learns from its trained weights (PatDNN; 4 to 12), "pconv" for the four of
        PCONV on 3x3, or lists of [row, column].
    callbacks: are told of each step.

    Raises
    ------
    UsageError: an unknown structure, a density out of range, a glob without a layer, nothing to prune.
    PconvgenError: the model cannot be traced, or a weight is not float32 or not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Sequence[torch.Tensor],
        structure: str | Mapping[str, str] = "pattern",
        budget: Budget = Density(0.25),  # noqa: B008 (frozen)
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        densities: Mapping[str, float] | None = None,
        patterns: int | str | Sequence[Any] = 8,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        for wanted in [structure] if isinstance(structure, str) else structure.values():
            check_structure(wanted)
        for share in (densities or {}).values():
            check_density(share)
        self.model = unwrapped(model)
        self._source = type(self.model).__name__
        self._inputs = tuple(example_inputs)
        self._callbacks = tuple(callbacks)
        self._program = exported(self.model, self._inputs)
        layers = layers_of(self.model, self._program)
        request = Request(structure, include, exclude, densities or {}, patterns)
        self._plan = plan(layers, self._program, request, budget, self._source)
        self._guard = Guard(self.model, [constraint.layer for constraint in self._plan.constraints])
        self._device = device_of(budget) if isinstance(budget, Latency) else None
        self._epoch: int | None = None
        self._densities: dict[str, float] = {}
        self._masks: Masks | None = None
        self._hard = False
        self._last_penalty: torch.Tensor | None = None
        self._devices = self._where()

    def penalty(self) -> torch.Tensor:
        """What is added to the loss, a scalar; zero once the model is pruned.

        Raises PconvgenError when the weights of the last batch were not finite, or the model was changed; in the former
        case the model has its last good weights again.
        """
        # Looked at a batch later: at once, an accelerator would have to be waited for.
        if self._last_penalty is not None and not torch.isfinite(self._last_penalty):
            self._guard.refuse()
        self._guard.check_same()
        self._follow()
        found = self._plan.constraints[0].layer.parameter.new_zeros(()) if self._hard else self._penalty()
        self._last_penalty = found.detach()
        return found

    def step(self, epoch: int) -> StepLog:
        """To be called after each epoch. Raises what `penalty` does, and what the budget's costs raise."""
        self._check()
        if not self._hard:
            self._prepare()
            details = self._update(epoch)
        else:
            details = {}
        if self._masks is not None:
            self._masks.apply()
        self._epoch, self._last_penalty = epoch, None
        self._guard.keep(epoch)
        log = self._log(epoch, details)
        for callback in self._callbacks:
            callback(log)
        return log

    def harden(self) -> None:
        """Prunes; from now on what is pruned stays zero, whatever an optimizer does.

        A budget of milliseconds that is measured is met by measuring the pruned network, some times. Raises what `step`
        does; a network that takes longer in spite of all is warned of.
        """
        self._check()
        if self._hard:
            return
        self._prepare()
        units = self._units()
        if self._device is not None:
            self._plan = replace(self._plan, costs=on_first_rank(lambda: self._met(units)))
        self._densities = self._plan.densities(units)
        self._hold(
            {c.name: c.layer.tensor(units[c.name].mask(self._densities[c.name])) for c in self._plan.constraints}
        )
        self._hard, self._last_penalty = True, None
        self._guard.keep(self._epoch)

    def export(self, path: str | Path) -> Path:
        """Writes the model as a .pt2 file, whole or not at all; `pconvgen compile` takes it.

        Raises
        ------
        UsageError: the model was not hardened, or the path does not end in .pt2.
        PconvgenError: the path cannot be written, or the weights are not finite.
        """
        path = Path(path)
        if not self._hard or self._masks is None:
            raise UsageError("the model is not pruned yet", file=path, remedy="call harden() before export()")
        if path.suffix != ".pt2":
            raise UsageError("unknown model format", file=path, found=path.suffix or "no extension", expected=".pt2")
        self._check()
        self._masks.apply()
        torch_weights.save(exported(self.model, self._inputs), path)
        return path

    def report(self) -> tuple[PrunedLayer, ...]:
        """What became of each layer, as `explain` has it; before harden(), what it is to become."""
        structures = {constraint.name: constraint.structure for constraint in self._plan.constraints}
        rows = []
        for layer in self._plan.layers:
            share = self._densities.get(layer.name, 1.0)
            if self._hard or layer.name not in structures:
                share = density(layer.weight())
            structure, note = structures.get(layer.name, DENSE), self._plan.notes[layer.name]
            for name in dict.fromkeys(use.name for use in layer.uses):
                rows.append(PrunedLayer(name, layer.op, layer.shape, structure, share, note))
                note = f"shares the weight of {layer.name}"
        return tuple(rows)

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on, beside the states of the model and the optimizer.

        Numbers, texts and tensors only, so that torch.load(weights_only=True) reads it.
        """
        return {
            **self._identity(),
            "params": {c.name: dict(c.params) for c in self._plan.constraints},
            "costs": None if self._plan.costs is None else self._plan.costs.to_json(),
            "epoch": self._epoch,
            "densities": dict(self._densities),
            "masks": None if self._masks is None else self._masks.by_name(),
            "hard": self._hard,
            "own": self._own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; load the model's and the optimizer's state before.

        Raises UsageError when the state is of another kind of pruner, of other layers or structures.
        """
        for what, mine in self._identity().items():
            if state[what] != mine:
                raise UsageError(
                    f"the state is of another pruner: its {what} differs",
                    file=self._source,
                    found=state[what],
                    expected=mine,
                    remedy="make the pruner with the model and the arguments that it had",
                )
        constraints = tuple(replace(c, params=state["params"][c.name]) for c in self._plan.constraints)
        costs = None if state["costs"] is None else NetworkCosts.from_json(state["costs"])
        self._plan = replace(self._plan, constraints=constraints, costs=costs)
        self._epoch, self._densities = state["epoch"], dict(state["densities"])
        self._hard, self._last_penalty = state["hard"], None
        self._hold(None if state["masks"] is None else state["masks"])
        self._load_own(state["own"])
        self._check()
        self._guard.keep(self._epoch)

    # What kinds of pruners differ in

    def _penalty(self) -> torch.Tensor:
        """What is added to the loss before the model is pruned."""
        return self._plan.constraints[0].layer.parameter.new_zeros(())

    def _update(self, epoch: int) -> dict[str, float]:
        """Once an epoch, before the model is pruned: settles the densities; what comes back is logged."""
        self._densities = self._plan.densities(self._units())
        return {}

    def _own_state(self) -> dict[str, Any]:
        """What a kind of pruner adds to the state."""
        return {}

    def _load_own(self, state: Mapping[str, Any]) -> None:
        """The inverse of `_own_state`; tensors go to the devices of their weights."""

    def _distances(self) -> dict[str, float]:
        """Layer -> how far its weight is from being pruned, by its norm."""
        found = {}
        for constraint, units in zip(self._plan.constraints, self._units().values(), strict=True):
            weight = constraint.layer.weight()
            lost = weight[~units.mask(self._densities[constraint.name])]
            found[constraint.name] = float(np.linalg.norm(lost)) / max(float(np.linalg.norm(weight)), TINY)
        return found

    # What they share

    def _units(self, weights: Mapping[str, Weight] | None = None) -> dict[str, Units]:
        """What there is to keep or drop, of the model's weights or of others."""
        return {c.name: c.units(None if weights is None else weights[c.name]) for c in self._plan.constraints}

    def _prepare(self) -> None:
        """Sees to it that costs are known, and fit the network where it can be measured."""
        if self._plan.costs is not None or isinstance(self._plan.budget, Density):
            return

        def costs() -> NetworkCosts | None:
            self._plan = self._plan.with_costs(self._program)
            units = self._units()
            for _ in range(CALIBRATIONS if self._device is not None else 0):
                self._measure(self._plan.densities(units), units)
            return self._plan.costs

        self._plan = replace(self._plan, costs=on_first_rank(costs))

    def _measure(self, densities: Mapping[str, float], units: Mapping[str, Units]) -> float:
        """Milliseconds of the network pruned to these densities; costs are scaled to that. The model stays as it is."""
        assert self._device is not None
        assert self._plan.costs is not None
        assert isinstance(self._plan.budget, Latency)
        whole = [(c.layer.parameter, c.layer.parameter.detach().clone()) for c in self._plan.constraints]
        # By .data, which autograd does not watch: a graph that holds these weights may wait for its backward pass, and
        # finds them as they were.
        try:
            for constraint in self._plan.constraints:
                mask = constraint.layer.tensor(units[constraint.name].mask(densities[constraint.name]))
                constraint.layer.parameter.data.masked_fill_(~mask, 0.0)
            found = measure_ms(exported(self.model, self._inputs), self._plan.budget, self._device)
        finally:
            for parameter, values in whole:
                parameter.data.copy_(values)
        self._plan = replace(self._plan, costs=self._plan.costs.measured(densities, found))
        return found

    def _met(self, units: Mapping[str, Units]) -> NetworkCosts:
        """NetworkCosts, scaled so that the network takes what it may with the densities that the budget pays for."""
        start = self._plan
        assert start.costs is not None
        costs, budget = start.costs, start.costs.budget

        def attempt(goal: float) -> float:
            plan = replace(start, costs=replace(costs, budget=goal))
            return self._measure(plan.densities(units), units)

        goal, found = meet(budget, attempt)
        if found > budget:
            warnings.warn(
                f"{self._source}: the pruned network takes {found:.4g} ms, the budget is {budget:.4g} ms",
                PconvgenWarning,
                stacklevel=5,
            )
        # What the budget pays for is now what the goal paid for.
        return replace(costs, scale=costs.scale * budget / goal)

    def _hold(self, masks: Mapping[str, torch.Tensor] | None) -> None:
        if self._masks is not None:
            self._masks.release()
        weights = {c.name: c.layer.parameter for c in self._plan.constraints}
        self._masks = None if masks is None else Masks({name: (weights[name], mask) for name, mask in masks.items()})

    def _check(self) -> None:
        self._guard.check_same()
        self._guard.check_finite()
        self._follow()

    def _where(self) -> list[torch.device]:
        return [constraint.layer.parameter.device for constraint in self._plan.constraints]

    def _follow(self) -> None:
        """Takes what the kind of pruner keeps along when the model moved to another device."""
        if self._devices != self._where():
            self._load_own(self._own_state())
            self._devices = self._where()

    def _identity(self) -> dict[str, Any]:
        layers = {c.name: [c.structure, *c.layer.shape] for c in self._plan.constraints}
        return {"kind": type(self).__name__, "layers": layers}

    def _log(self, epoch: int, details: dict[str, float]) -> StepLog:
        costs = self._plan.costs
        return StepLog(
            epoch,
            dict(self._densities),
            self._distances(),
            None if costs is None else costs.total(self._densities),
            None if costs is None else costs.budget,
            "" if costs is None else costs.unit,
            details,
        )
