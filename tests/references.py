"""Transposed convolution and pooling as plain NumPy loops over the positions of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


def transposed_convolution(
    data: NDArray[Any],
    weight: NDArray[Any],
    stride: Pair,
    padding: tuple[int, int, int, int],
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> NDArray[np.float64]:
    """data [n, c, h, w], weight [c, filters / groups, kh, kw], padding (top, left, bottom, right)."""
    n, c, h, w = data.shape
    per_group, (kh, kw) = weight.shape[1], weight.shape[2:]
    spans = [(size - 1) * s + d * (k - 1) + 1 for size, s, d, k in zip((h, w), stride, dilation, (kh, kw), strict=True)]
    whole = np.zeros((n, groups, per_group, spans[0] + output_padding[0], spans[1] + output_padding[1]))
    x = data.reshape(n, groups, c // groups, h, w)
    y = weight.reshape(groups, c // groups, per_group, kh, kw)
    for r in range(kh):
        for q in range(kw):
            rows = slice(r * dilation[0], r * dilation[0] + (h - 1) * stride[0] + 1, stride[0])
            columns = slice(q * dilation[1], q * dilation[1] + (w - 1) * stride[1] + 1, stride[1])
            whole[:, :, :, rows, columns] += np.einsum("ngchw,gcf->ngfhw", x, y[..., r, q])
    whole = whole.reshape(n, -1, *whole.shape[3:])
    top, left, bottom, right = padding
    return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]


def windows(
    data: NDArray[Any], fill: float, kernel: Pair, stride: Pair, dilation: Pair, padding: Pair, output: Pair
) -> NDArray[Any]:
    """The windows of planes [planes, height, width]: [planes, output rows, output columns, elements of a window]."""
    _, height, width = data.shape
    spans = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(output, stride, kernel, dilation, strict=True)]
    behind = [max(0, spans[0] - padding[0] - height), max(0, spans[1] - padding[1] - width)]
    sides = ((0, 0), (padding[0], behind[0]), (padding[1], behind[1]))
    padded = np.pad(data, sides, constant_values=fill)
    found = [
        padded[
            :,
            r * dilation[0] : r * dilation[0] + (output[0] - 1) * stride[0] + 1 : stride[0],
            c * dilation[1] : c * dilation[1] + (output[1] - 1) * stride[1] + 1 : stride[1],
        ]
        for r in range(kernel[0])
        for c in range(kernel[1])
    ]
    return np.stack(found, axis=-1)
