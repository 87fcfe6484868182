"""Lowering layers: each one becomes a call of a generated kernel with packed weights.

before: lv1 = conv2d(x, weight); lv2 = add(lv1, bias); lv3 = relu(lv2)
after:  packed = call_tir(pack, (x,))
        lv3 = call_tir(pixels, (packed, offsets, values, indptr, order, chunks, bias))
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pconvgen.decision import Decision
from pconvgen.passes.choose import LayerPlan, plan_layer
from pconvgen.passes.foreign import foreign_layers
from pconvgen.passes.shrink import original_shapes
from pconvgen.passes.sites import find_sites
from pconvgen.passes.transposed import transposed_layers
from pconvgen.targets.target import Target
from pconvgen.templates.channels import ChannelKernel
from pconvgen.tvm_compat import (
    Emit,
    KernelCalls,
    constant,
    eliminate_dead_code,
    layer_names,
    main_bindings,
    module_pass,
    reshape,
    rewrite_main,
    shape_of,
)

DECISIONS = "pconvgen.decisions"
"""Module attribute: JSON list of the decisions, one for every convolution and linear layer in program order."""


@module_pass
class LowerLayers:
    """Relax pass that replaces layers with constant weights in "main" by generated kernels.

    Layers without a kernel stay for TVM's own legalisation. The decisions are left in the module's attribute DECISIONS.

    Parameters
    ----------
    target: what code is generated for.
    dense: ignore the zeros in the weights, to compare with.
    """

    def __init__(self, target: Target, dense: bool = False) -> None:
        self.target, self.dense = target, dense

    def transform_module(self, module: Any, _context: Any) -> Any:
        """A new module whose kernels are TIR functions."""
        names = layer_names(module)
        originals, transposed = original_shapes(module), transposed_layers(module)
        plans = {}
        for site in find_sites(module):
            name = names.get(site.var.name, site.var.name)
            layer = transposed.get(site.var.name)
            present = None if layer is None else layer.mask(site.weight, site.workload.groups)
            original = originals.get(site.var.name)
            plan = plan_layer(site, name, self.target, dense=self.dense, original=original, present=present)
            if layer is not None:
                plan = replace(plan, decision=layer.described(plan.decision, dense=self.dense))
            plans[site.result] = plan
        lowering = _Lowering(plans)
        lowered = eliminate_dead_code(lowering.kernels.add_to(rewrite_main(module, lowering.rule)))
        decided = {plan.site.var: plan.decision for plan in plans.values()}
        decided.update(foreign_layers(module, decided, names))
        ordered = [decided[binding.var] for binding in main_bindings(module) or [] if binding.var in decided]
        return lowered.with_attr(DECISIONS, json.dumps([decision.to_json() for decision in ordered]))


def decisions_of(module: Any) -> tuple[Decision, ...]:
    """The decisions that LowerLayers left in a module."""
    return tuple(Decision.from_json(row) for row in json.loads(module.attrs[DECISIONS]))


class _Lowering:
    def __init__(self, plans: dict[Any, LayerPlan]) -> None:
        self.plans = plans
        self.kernels = KernelCalls()
        self.packed: dict[tuple[Any, Any], Any] = {}

    def rule(self, var: Any, value: Any, emit: Emit) -> Any:
        """The call that replaces the last operation of a layer; everything else stays."""
        plan = self.plans.get(var)
        if plan is None:
            return value
        site, instance = plan.site, plan.instance
        matrix = isinstance(instance.kernel, ChannelKernel)
        workload = site.workload
        pixels = (workload.batch, workload.out_channels, workload.out_height, workload.out_width)
        shape = (workload.batch, workload.out_channels) if matrix else pixels
        rows = (workload.batch, workload.in_channels)
        data = self._view(site.data, rows, emit) if matrix else self._packed(site.data, instance.pack, emit)
        extra = [] if site.bias is None else [constant(site.bias)]
        if site.residual is not None:
            extra.append(self._view(site.residual, shape, emit))
        call = self.kernels.call(instance.kernel, [data, *map(constant, instance.constants), *extra], shape)
        return call if shape == site.out_shape else reshape(emit(call), site.out_shape)

    def _packed(self, data: Any, pack: Any, emit: Emit) -> Any:
        """`data` in the kernel's layout; layers that read it in the same layout share the packed tensor."""
        if pack is None:
            return data
        key = (data, pack)
        if key not in self.packed:
            layout = pack.layout
            self.packed[key] = emit(self.kernels.call(pack, [data], (layout.workload.batch, layout.size)), "packed")
        return self.packed[key]

    @staticmethod
    def _view(data: Any, shape: tuple[int, ...], emit: Emit) -> Any:
        return data if shape_of(data) == shape else emit(reshape(data, shape))
