"""Layers among the operations of a network: the layouts that they can read and write, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pconvgen.planning.choose import Layer, LayerPlan, fastest, options
from pconvgen.planning.requests import Plans, TensorAccess, first_place
from pconvgen.planning.tensors import Home
from pconvgen.schedules.roofline import store_cycles, zeros_cycles
from pconvgen.templates.instance import Instance
from pconvgen.templates.layout.proposals import layouts
from pconvgen.tvm_compat.relax import Expr, Var, constant
from pconvgen.values.planes import Places, PlaneLayout, plain_layout
from pconvgen.values.target import Target

CONTENDER = 1.4
"""Encodings are compared in every layout if in one they take at most so many times the cycles of the fastest."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A layer with the `pixels` template.

    Attributes
    ----------
    layer: the layer.
    target: what code is generated for.
    reads: homes of the data and, if one is added, of the residual; None for tensors of other operators, and for data
        that is packed because it is in another format.
    writes: home of the result.
    """

    layer: Layer
    target: Target
    reads: tuple[Home | None, ...]
    writes: Home

    @property
    def result(self) -> Var:
        """The variable that the kernel computes."""
        return self.layer.fused_op.result

    @cached_property
    def _layer(self) -> Layer:
        home = self.reads[0]
        return self.layer if home is None or home.first is not None else self.layer.scattered()

    @cached_property
    def _contenders(self) -> Layer:
        """The layer with the encodings that are fastest in some layout: the others will not be in another one."""
        w = self.layer.fused_op.workload
        plain = plain_layout(w.out_channels, w.out_height, w.out_width)
        places = self._places([next(iter(self.proposals())), plain], plain)
        ranking, parted = options(self._layer, self.target, places)
        limit = CONTENDER * ranking[0].cycles
        close = [choice.candidate for choice in ranking if choice.cycles < limit]
        return replace(
            self._layer,
            candidates=tuple(candidate for candidate in self._layer.candidates if candidate in close),
            splits=tuple(choice.split for choice in parted[:1] if choice.cycles < limit),
        )

    @property
    def batch(self) -> int:
        """Images that are computed."""
        return self.layer.fused_op.workload.batch

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of the input."""
        return layouts(self.layer.fused_op.workload, self.target.core.isa)

    def can_read(self, number: int, source: PlaneLayout) -> bool:
        """Whether the data (0) or the residual (1) may lie so."""
        return source.readable(self.layer.fused_op.workload) if number == 0 else source.main is not None

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Of the fastest encoding."""
        if target is None or not target.writable or not all(map(self.can_read, range(len(sources)), sources)):
            return math.inf
        places = self._places(sources, target)
        # All that the cost of a kernel knows of where its output lies: see Priced, and Places for `seamless`.
        costs, to_rows = self.target.core.costs, replace(places, residual=None).seamless
        key = places.source, places.seamless, to_rows, store_cycles(target, costs), zeros_cycles(target, costs)
        if key not in self._known:
            self._known[key] = fastest(*options(self._contenders, self.target, places)).cycles
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[PlaneLayout, bool, bool, float, float], float]:
        """Cycles that were asked for."""
        return {}

    def _places(self, sources: Sequence[PlaneLayout], target: PlaneLayout) -> Places:
        w, residual = self.layer.fused_op.workload, None
        if w.epilogue.residual:
            residual = sources[1] if sources[1:] else plain_layout(w.out_channels, w.out_height, w.out_width)
        return Places(sources[0], target, residual)

    def plan(self, source: PlaneLayout, tensors: Plans) -> LayerPlan:
        """The layer's kernel for the layouts that were chosen."""
        data, residual = self.reads[0], self.reads[1] if self.reads[1:] else None
        sources = [source, *([tensors.layout(residual)] if residual else [])]
        first = (first_place(self.writes), first_place(residual))
        places = self._places(sources, tensors.layout(self.writes))
        slots = data.slots if data is not None and source == tensors.layout(data) else None
        layer = replace(self._layer, splits=self._contenders.splits)
        return tensors.plan(layer, places, slots=slots, first=first)

    def emit(self, plan: LayerPlan, source: PlaneLayout, tensors: TensorAccess) -> None:
        """Calls the kernels."""
        w, sums = self.layer.fused_op.workload, None
        *before, last = plan.instances
        for instance in before:
            args = self._args(instance, source, sums, tensors)
            sums = tensors.result(instance.kernel, args, (w.batch, w.out_channels, w.out_height, w.out_width))
        tensors.write(self.writes, last.kernel, self._args(last, source, sums, tensors))

    def _args(self, instance: Instance, source: PlaneLayout, sums: Expr | None, tensors: TensorAccess) -> list[Expr]:
        """What a kernel reads; `sums` is the result of the one before it, None for the first."""
        fused_op, epilogue, formats = (
            self.layer.fused_op,
            instance.kernel.workload.epilogue,
            self.layer.fused_op.workload.precision,
        )
        args = [tensors.read(self.reads[0], fused_op.data, source, formats.arithmetic)]
        args += map(constant, instance.constants)
        if epilogue.bias and fused_op.bias is not None:
            args.append(constant(fused_op.bias.astype(formats.arithmetic)))
        if epilogue.residual:
            args.append(
                tensors.read(self.reads[1], fused_op.residual, None, formats.activations) if sums is None else sums
            )
        return args
