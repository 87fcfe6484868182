"""Random layers, their kernels, and what they must compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity import STRUCTURES, project
from pconvgen.values.precision import Precision
from pconvgen.values.workload import ConvWorkload, Epilogue
from tests.activations import activated, random_activation

TOLERANCE = 1e-5
"""Largest error, relative to the largest sum: float32 sums of a few hundred terms."""
STORED_HALF, COMPUTED_HALF = 1e-3, 1.5e-2
"""The same where results are rounded to float16 (which has 11 bits), and where every sum is."""

NAN_SHARE = 0.3
"""Layers with NaN in their data."""


def tolerance(formats: Precision) -> float:
    """Largest error, relative to the largest sum, in these formats."""
    if formats.arithmetic == "float16":
        return COMPUTED_HALF
    return STORED_HALF if formats.activations == "float16" else TOLERANCE


def random_epilogue(rng: np.random.Generator) -> Epilogue:
    """Anything that may follow a convolution."""
    return Epilogue(
        bias=bool(rng.integers(2)),
        residual=bool(rng.integers(2)),
        activation=random_activation(rng),
    )


def random_workload(rng: np.random.Generator) -> ConvWorkload:
    """A small convolution with anything that a network may ask for, or a linear layer."""
    return random_linear(rng) if rng.random() < 0.2 else random_convolution(rng)


def random_linear(rng: np.random.Generator) -> ConvWorkload:
    """A linear layer."""
    images = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 16]))
    channels, filters = (int(n) for n in rng.integers(1, 70 if rng.random() < 0.8 else 300, 2))
    return ConvWorkload(images, channels, 1, 1, filters, (1, 1), epilogue=random_epilogue(rng))


def random_convolution(rng: np.random.Generator) -> ConvWorkload:
    """A convolution: small, because the code of a large one is the same with larger numbers."""
    kind = rng.integers(4)
    groups = int([1, 1, rng.integers(2, 4), rng.integers(2, 9)][kind])
    per_group = 1 if kind == 3 else int(rng.integers(1, 12))
    filters = groups * int(rng.integers(1, 3) if kind == 3 else rng.integers(1, 14))
    square = (int(rng.choice([1, 3])),) * 2
    kernel = tuple(int(k) for k in rng.choice([1, 2, 3, 4, 5, 7], 2)) if rng.random() < 0.4 else square
    stride = tuple(int(s) for s in rng.integers(1, 4, 2)) if rng.random() < 0.4 else (1, 1)
    dilation = tuple(int(d) for d in rng.integers(1, 4, 2)) if rng.random() < 0.2 else (1, 1)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    same, asymmetric = (span[0] // 2, span[1] // 2) * 2, tuple(int(p) for p in rng.integers(0, 4, 4))
    padding = [same, same, asymmetric, asymmetric, (0, 0, 0, 0)][rng.integers(5)]
    # Rows of more vectors than are unrolled are the exception.
    rows, columns = (4, 300) if rng.random() < 0.1 else (20, 30)
    return ConvWorkload(
        # With 16 images every tensor ends where its last 64 bytes do, and the page behind it is inaccessible.
        batch=int(rng.choice([1, 1, 2, 3, 16, 16])),
        in_channels=groups * per_group,
        height=max(1, span[0] - padding[0] - padding[2]) + int(rng.integers(0, rows)),
        width=max(1, span[1] - padding[1] - padding[3]) + int(rng.integers(0, columns)),
        out_channels=filters,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        epilogue=random_epilogue(rng),
    )


def random_weight(workload: ConvWorkload, rng: np.random.Generator) -> NDArray[np.float32]:
    """A weight of a random structure and density; sometimes full, sometimes empty."""
    weight = rng.standard_normal(workload.weight_shape).astype(np.float32)
    name = rng.choice(list(STRUCTURES))
    if name == "pattern" and workload.kernel[0] * workload.kernel[1] == 1:
        name = "unstructured"
    density = float(rng.choice([0.05, 0.125, 0.25, 0.5, 1.0]))
    if rng.random() < 0.05:
        return np.zeros_like(weight)
    return project(name, weight, density, groups=workload.groups)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with its data and what it must compute.

    Attributes
    ----------
    expected: the outputs, as if NaN in the data were zeros.
    nan: which of them are NaN: those with NaN in their window at a weight that is kept.
    maybe: which of them may be, as that happens at a pruned weight.
    largest: the largest sum of products, which may be clipped in the outputs, or output: rounding errors are relative
        to it.
    """

    workload: ConvWorkload
    weight: NDArray[np.float32]
    data: NDArray[np.floating]
    bias: NDArray[np.floating]
    residual: NDArray[np.floating]
    expected: NDArray[np.float64]
    nan: NDArray[np.bool_]
    maybe: NDArray[np.bool_]
    largest: float


def random_layer(
    rng: np.random.Generator, w: ConvWorkload, weight: NDArray[np.float32], *, spreads: bool = False
) -> Layer:
    """A layer with random data, in the formats of the workload; what is expected is computed exactly from that.

    There is NaN in the data now and then; a kernel that `spreads` it may give it to other outputs of the image.
    """
    formats = w.precision
    out_shape = (w.batch, w.out_channels, w.out_height, w.out_width)
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(formats.activations)
    bias = rng.standard_normal(w.out_channels).astype(formats.arithmetic)
    residual = rng.standard_normal(out_shape).astype(formats.activations)
    sums, missing = convolution(w, weight, data), np.zeros(data.shape, bool)
    nan, maybe = (np.zeros(out_shape, bool) for _ in range(2))
    if rng.random() < NAN_SHARE:
        missing.flat[rng.integers(missing.size, size=2)] = True
        sums = convolution(w, weight, np.where(missing, data.dtype.type(0), data))
        ones = missing.astype(np.float32)
        nan, maybe = (convolution(w, kept.astype(np.float32), ones) > 0 for kept in (weight != 0, weight == weight))
        if spreads:
            maybe |= missing.any(axis=(1, 2, 3), keepdims=True)
    expected = finished(w.epilogue, sums, bias, residual)
    largest = max(1.0, float(np.abs(sums).max()), float(np.abs(expected).max()))
    data = np.where(missing, data.dtype.type(np.nan), data)
    return Layer(w, weight, data, bias, residual, expected, nan, maybe, largest)


def convolution(w: ConvWorkload, weight: NDArray[np.float32], data: NDArray[np.floating]) -> NDArray[np.float64]:
    """The sums of products, by the definition, in float64."""
    top, left, bottom, right = w.padding
    (kh, kw), (sh, sw), (dh, dw) = w.kernel, w.stride, w.dilation
    padded = np.pad(data.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    out = np.zeros((w.batch, w.out_channels, w.out_height, w.out_width))
    for inputs, outputs, weights in zip(
        np.split(padded, w.groups, 1), np.split(out, w.groups, 1), np.split(weight, w.groups), strict=True
    ):
        for row in range(kh):
            for column in range(kw):
                seen = inputs[:, :, row * dh :: sh, column * dw :: sw][:, :, : w.out_height, : w.out_width]
                outputs += np.einsum("fc,nchw->nfhw", weights[:, :, row, column].astype(np.float64), seen)
    return out


def finished(epilogue: Epilogue, out: NDArray[np.float64], bias: Any, residual: Any) -> NDArray[np.float64]:
    """The sums of a convolution with the epilogue applied."""
    if epilogue.bias:
        out = out + bias[:, None, None].astype(np.float64)
    if epilogue.residual:
        out = out + residual
    return activated(epilogue.activation, out)


def error(layer: Layer, output: NDArray[np.floating]) -> float:
    """Largest error relative to the largest sum; infinite when something is not finite that ought to be, or is."""
    output = output.reshape(layer.expected.shape)
    nan = np.isnan(output)
    if (nan & ~layer.maybe).any() or (layer.nan & ~nan).any() or np.isinf(output).any():
        return float("inf")
    return float(np.abs(output - layer.expected)[~nan].max(initial=0) / layer.largest)
