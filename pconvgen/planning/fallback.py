"""Layers that stay with TVM's own legalisation, and why."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from pconvgen.sparsity import DENSE
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant_value, is_op, shape_of
from pconvgen.tvm_compat.rewriting import main_bindings
from pconvgen.values.decision import Decision

_CONVOLUTIONS = {
    "relax.nn.conv1d": "conv1d",
    "relax.nn.conv2d": "conv2d",
    "relax.nn.conv3d": "conv3d",
    "relax.nn.conv1d_transpose": "conv1d_transpose",
    "relax.nn.conv2d_transpose": "conv2d_transpose",
    "relax.nn.conv3d_transpose": "conv3d_transpose",
    "relax.matmul": "linear",
}


def fallback_layers(module: Module, decided: Container[Var], names: Mapping[str, str]) -> dict[Var, Decision]:
    """Decisions for convolutions and products with a constant that no template computes, by their variable."""
    found = {}
    for binding in main_bindings(module) or []:
        value = binding.value
        if binding.var in decided or not is_op(value, *_CONVOLUTIONS):
            continue
        op, weight = _CONVOLUTIONS[value.op.name], constant_value(value.args[1])
        if weight is None and op == "linear":
            continue  # a product of two activations is no layer
        shape = shape_of(value.args[1]) or ()
        found[binding.var] = Decision(
            name=names.get(binding.var.name, binding.var.name),
            op=op,
            shape=shape,
            macs=_macs(value, op, shape),
            structure=DENSE,
            density=1.0 if weight is None else float(np.count_nonzero(weight) / weight.size),
            choice="tvm",
            reason="the weight is computed at run time" if weight is None else f"no template for this {op}",
        )
    return found


def _macs(value: Expr, op: str, weight: tuple[int, ...]) -> int:
    """Every weight of a channel meets every output (convolution) or input (transposed convolution) position."""
    counted = shape_of(value.args[0]) if op.endswith("transpose") else shape_of(value)
    if not counted:
        return 0
    if op == "linear":
        return int(np.prod(counted[:-1], dtype=np.int64)) * int(np.prod(weight, dtype=np.int64))
    positions = counted[0] * int(np.prod(counted[2:], dtype=np.int64))
    return positions * int(np.prod(weight, dtype=np.int64))
