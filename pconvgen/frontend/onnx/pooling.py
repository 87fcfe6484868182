"""Pooling of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import relax

from pconvgen.errors import UnsupportedError
from pconvgen.frontend.onnx.powers import power
from pconvgen.frontend.onnx.windows import explicit_pool
from pconvgen.tvm_compat.relax import Expr, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit

_AVERAGE = (relax.op.nn.avg_pool1d, relax.op.nn.avg_pool2d, relax.op.nn.avg_pool3d)


def pool(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> None:
    """MaxPool and AveragePool: TVM's importer gets explicit pads."""
    if attrs["tvm_custom"]["num_outputs"] > 1:
        raise UnsupportedError("the indices of a max pooling")
    explicit_pool(inputs, attrs)


def lp_pool(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    """The p-norm of each window: a mean of powers times the elements of a window, padding included."""
    explicit_pool(inputs, attrs)
    kernel = list(attrs["kernel_shape"])
    dims = len(kernel)
    strides, dilations = attrs.get("strides", [1] * dims), attrs.get("dilations", [1] * dims)
    pads = list(attrs.get("pads", [0] * (2 * dims)))
    if attrs.get("ceil_mode", 0):
        # The means count what lies behind the padding only if it is padding, too.
        for axis, size in enumerate((shape_of(inputs[0]) or ())[2:]):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            padded = size + pads[axis] + pads[dims + axis]
            last = -(-(padded - reach) // strides[axis]) * strides[axis]
            if last < size + pads[axis]:  # a window that begins in the padding is none
                pads[dims + axis] += last + reach - padded
    powers = power(relax.op.abs(inputs[0]), p := attrs.get("p", 2), emit)
    means = _AVERAGE[dims - 1](powers, kernel, strides, pads, dilations, False, True)
    sums = relax.op.multiply(means, relax.const(math.prod(kernel), dtype_of(inputs[0])))
    return power(sums, 1 / p, emit)
