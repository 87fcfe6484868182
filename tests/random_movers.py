"""Random kernels of what has no weights: pools, resizing, softmax, transposing, and what NumPy gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.movement.resize import ResizeKernel
from pconvgen.templates.movement.transpose import TransposeKernel
from pconvgen.templates.operators.global_pool import GlobalPoolKernel
from pconvgen.templates.operators.pool import PoolKernel
from pconvgen.templates.operators.softmax import SoftmaxKernel
from pconvgen.values.planes import plain_layout
from tests.guarded import Guarded
from tests.references import windows

Array = NDArray[Any]
Mover = tuple[Any, list[Array], Array]
"""A kernel, its inputs, and its output."""

TOLERANCE = 1e-5


def check_mover(inputs: Sequence[Array], expected: Array, function: Callable[..., Any], at: Any) -> str | None:
    """Runs a kernel between inaccessible pages; what is wrong, or None."""
    buffers = [Guarded(array, at, writable=False) for array in inputs]
    output = Guarded(np.full(expected.shape, np.nan, np.float32), at, writable=True)
    function(*(buffer.array for buffer in buffers), output.array)
    if not output.intact:
        return "wrote behind the end of a buffer"
    finite = np.isfinite(expected)
    if not np.array_equal(output.array[~finite], expected[~finite], equal_nan=True):
        return "NaN or an infinity is elsewhere"
    found, numbers = output.array[finite], expected[finite]
    wrong = np.abs(found - numbers).max(initial=0) / max(1.0, np.abs(numbers).max(initial=0))
    return None if wrong <= TOLERANCE else f"error {wrong}"


def with_special_numbers(rng: np.random.Generator, data: Array) -> Array:
    """`data`, now and then with NaN and infinities."""
    special = rng.choice([np.nan, np.inf, -np.inf], data.shape).astype(data.dtype)
    return np.where(rng.random(data.shape) < rng.choice([0, 0.02, 0.2]), special, data)


def resize(rng: np.random.Generator, lanes: int) -> Mover:
    """Columns that grow evenly, with and without a period, and may begin and end beside the input."""
    while True:
        size, output = (_size(rng), _size(rng)), (_size(rng), _size(rng))
        if rng.random() < 0.5:
            output = (output[0], size[1] * int(rng.integers(1, 5)))
        terms = int(rng.choice([1, 2, 3, 4, 7]))
        scale, shift = size[1] / output[1], rng.choice([0, -0.5, 0.5, -2])
        columns = (np.floor(np.arange(output[1]) * scale + shift) + np.arange(terms)[:, None]).astype(int)
        planes = (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
        picks = tuple(tuple(map(int, each)) for each in columns)
        kernel = ResizeKernel(planes, size, output, picks, lanes)
        if kernel.feasible:
            break
    data = with_special_numbers(rng, rng.standard_normal((*planes, *size)).astype(np.float32))
    rows = rng.integers(0, size[0], (terms, output[0])).astype(np.int32)
    inputs = [data, rows]
    row_weight, column_weight = np.ones((terms, output[0]), np.float32), np.ones((terms, output[1]), np.float32)
    if terms > 1:
        row_weight = rng.standard_normal(row_weight.shape).astype(np.float32)
        column_weight = rng.standard_normal(column_weight.shape).astype(np.float32)
        inputs += [row_weight, column_weight]
    inside = np.clip(columns, 0, size[1] - 1)
    with np.errstate(invalid="ignore"):
        high = sum(
            data[:, :, row] * weight[:, None].astype(float) for row, weight in zip(rows, row_weight, strict=True)
        )
        wide = sum(high[..., column] * weight for column, weight in zip(inside, column_weight, strict=True))
    return kernel, inputs, wide


def softmax(rng: np.random.Generator, lanes: int) -> Mover:
    """Rows and columns of any length; now and then minus infinity."""
    shape = tuple(int(size) for size in rng.integers(1, 12, rng.integers(2, 5)))
    axis = int(rng.integers(len(shape)))
    shape = (*shape[:-1], _size(rng))
    data = with_special_numbers(rng, (rng.standard_normal(shape) * rng.choice([0.1, 1, 30])).astype(np.float32))
    if shape[axis] > 1:
        infinite = rng.random(shape) < 0.1
        np.put_along_axis(infinite, np.zeros([1 if a == axis else s for a, s in enumerate(shape)], int), False, axis)
        data[infinite] = -np.inf
    with np.errstate(invalid="ignore"):
        powers = np.exp(data.astype(float) - data.max(axis=axis, keepdims=True))
    kernel = SoftmaxKernel(shape, axis, lanes)
    return kernel, [data], powers / powers.sum(axis=axis, keepdims=True)


def transpose(rng: np.random.Generator, lanes: int) -> Mover:
    """Permutations of two to five axes, many of them with short rows."""
    while True:
        rank = int(rng.integers(2, 6))
        shape = tuple(int(rng.integers(1, [5, 9, 40 if rank < 4 else 12][rng.integers(3)])) for _ in range(rank))
        axes = tuple(int(axis) for axis in rng.permutation(rank))
        kernel = TransposeKernel(shape, axes, lanes)
        if kernel.moves_last:
            break
    data = with_special_numbers(rng, rng.standard_normal(shape).astype(np.float32))
    return kernel, [data], np.ascontiguousarray(data.transpose(axes))


def pool(rng: np.random.Generator, lanes: int) -> Mover:
    """The largest elements of windows of any kernel, stride, dilation and padding, or of whole planes."""
    batch, channels = int(rng.integers(1, 3)), int(rng.integers(1, 5))
    size = (_size(rng), _size(rng))
    data = with_special_numbers(rng, rng.standard_normal((batch, channels, *size)).astype(np.float32))
    if rng.random() < 0.3:
        kernel: Any = GlobalPoolKernel("max", batch, channels, plain_layout(channels, *size), 0, lanes)
        return kernel, [data], data.max(axis=(2, 3)).reshape(-1)
    window, stride, rate = (tuple(int(n) for n in rng.integers(1, most, 2)) for most in (6, 4, 3))
    padding = int(rng.integers(0, window[0])), int(rng.integers(0, window[1]))
    rows, columns = (
        max(1, (n + 2 * p - (k - 1) * r - 1) // s + 1)
        for n, p, k, r, s in zip(size, padding, window, rate, stride, strict=True)
    )
    places = plain_layout(channels, *size), plain_layout(channels, rows, columns)
    kernel = PoolKernel("max", batch, channels, *places, (0, 0), window, stride, rate, padding, lanes)
    found = windows(data.reshape(-1, *size), -np.inf, window, stride, rate, padding, (rows, columns)).max(axis=-1)
    return kernel, [data], found.reshape(batch, channels, rows, columns)


def _size(rng: np.random.Generator) -> int:
    return int(rng.integers(1, [8, 40, 150][rng.integers(3)]))


MOVERS: dict[str, Callable[[np.random.Generator, str], Mover]] = {
    "pool": pool,
    "resize": resize,
    "softmax": softmax,
    "transpose": transpose,
}
