"""What a layer must compute, with PyTorch and NumPy: independent of templates and encodings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.values.workload import Activation, ConvWorkload

Array = NDArray[np.float64]


def convolution(
    workload: ConvWorkload,
    weight: NDArray[Any],
    data: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
) -> Array:
    """The layer's outputs in float64, NCHW, of `data` NCHW and the dense `weight`."""
    import torch

    w = workload
    top, left, bottom, right = w.padding
    padded = np.pad(data.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    out = torch.nn.functional.conv2d(
        torch.from_numpy(padded),
        torch.from_numpy(weight.astype(np.float64)),
        None if bias is None else torch.from_numpy(bias.astype(np.float64)),
        w.stride,
        0,
        w.dilation,
        w.groups,
    ).numpy()
    if residual is not None:
        out = out + residual
    return out if w.epilogue.activation is None else _activated(w.epilogue.activation, out)


def _activated(expression: Activation | float, x: Array) -> Any:
    if isinstance(expression, float):
        return expression
    if expression.name == "x":
        return x
    return _OPERATIONS[expression.name](*(_activated(operand, x) for operand in expression.operands))


def _sigmoid(x: Array) -> Array:
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, z) / (1 + z)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
}
"""The operations of `Activation`, by name."""
