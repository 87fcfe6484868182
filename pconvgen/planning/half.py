"""Half precision: the formats that layers are computed in, and whether their weights fit them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pconvgen.errors import PconvgenError
from pconvgen.matching.fused_ops import FusedOp, find_fused_ops
from pconvgen.tvm_compat.relax import Module
from pconvgen.tvm_compat.rewriting import layer_names
from pconvgen.values.dtype import DType
from pconvgen.values.precision import Precision

LONG_SUM = 2048
"""Products that are added up in float16 at most. Of normally distributed numbers, the root mean square of the error is
0.4 % of that of the sums with 576 products, 0.7 % with 2048, 1 % with 4608."""


def in_precision(fused_op: FusedOp, asked: Precision) -> FusedOp:
    """The layer with the formats that it is computed in.

    Long sums are in float32. Linear layers and convolutions of single pixels are so with their inputs and outputs, too:
    they are as fast as their weights are read, and mostly come last.
    """
    longest = int(np.count_nonzero(fused_op.weight, axis=(1, 2, 3)).max(initial=0))
    formats = asked if longest <= LONG_SUM else replace(asked, arithmetic=DType.FLOAT32)
    if fused_op.workload.is_product:
        formats = replace(asked, activations=DType.FLOAT32, arithmetic=DType.FLOAT32)
    return replace(fused_op, workload=replace(fused_op.workload, precision=formats))


def check_range(module: Module, asked: Precision) -> None:
    """Checks that the weights and biases of all layers of "main" fit their formats.

    Not part of a pass, out of which TVM would let only its own errors.

    Raises
    ------
    PconvgenError: one is too large.
    """
    if asked.weights == DType.FLOAT32:
        return
    names = layer_names(module)
    for fused_op in find_fused_ops(module):
        formats = in_precision(fused_op, asked).workload.precision
        values = {"weight": (fused_op.weight, formats.weights), "bias": (fused_op.bias, formats.arithmetic)}
        for what, (array, stored) in values.items():
            largest = 0.0 if array is None else float(np.abs(array).max(initial=0))
            if stored != DType.FLOAT32 and not largest <= stored.largest:
                raise PconvgenError(
                    f"a {what} is too large for {stored}",
                    layer=names.get(fused_op.var.name, fused_op.var.name),
                    found=f"{largest:g}",
                    expected=f"at most {stored.largest:g}",
                    remedy="compile in float32, or scale the layer and the one before it",
                )
