"""The layers that a device is calibrated with: of every kind, size, structure and density, a few milliseconds each.

They are drawn, always the same ones, so that the first few of them span as much as all do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.matching.fused_ops import FusedOp
from pconvgen.planning.choose import layer_of, predicted
from pconvgen.sparsify import fitting
from pconvgen.sparsity import DENSE, Weight, project
from pconvgen.templates.layout.proposals import layouts
from pconvgen.tuning.task import Task
from pconvgen.values.planes import Places, PlaneLayout, plain_layout
from pconvgen.values.target import Target
from pconvgen.values.workload import RELU, Activation, ConvWorkload, Epilogue, X

LAYERS = 48
CHANNELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SIZES = (7, 10, 14, 20, 28, 40, 56, 80, 112)
DENSITIES = (0.5, 0.25, 0.125)
MOST_KEPT, MOST_MACS, MOST_INPUTS = 1.2e8, 1e9, 1e6
"""Multiply-accumulates that are left and of the dense layer, and elements of the input, of a layer at most."""


@dataclass(frozen=True)
class _Kind:
    """Layers of one sort.

    Attributes
    ----------
    kernel, stride: in both directions.
    depthwise: whether each channel is a group.
    product: whether it is a product of matrices.
    structures: what their weights are pruned to, in turn.
    """

    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    product: bool = False
    structures: tuple[str, ...] = (DENSE,)


_KINDS = (
    _Kind(3, structures=("pattern", "simd_block", DENSE, "block_punched", "unstructured")),
    _Kind(1, structures=("simd_block", DENSE, "unstructured", "block_punched")),
    _Kind(3, structures=("simd_block", "pattern", DENSE)),
    _Kind(3, depthwise=True),
    _Kind(1, structures=(DENSE, "simd_block")),
    _Kind(3, stride=2, structures=("simd_block", "pattern", DENSE)),
    _Kind(3, depthwise=True, stride=2),
    _Kind(product=True, structures=("simd_block", DENSE)),
)
"""In the order in which they take turns, the common ones twice."""

_SILU = Activation("silu", (X,))
_EPILOGUES = (
    Epilogue(bias=True, activation=RELU),
    Epilogue(bias=True),
    Epilogue(bias=True, residual=True, activation=RELU),
    Epilogue(bias=True, activation=_SILU),
)


def calibration_tasks(target: Target) -> list[Task]:
    """The layers as a tuner takes them, one of each kind after the other."""
    rng, turns = np.random.default_rng(0), dict.fromkeys(_KINDS, 0)
    found: list[Task] = []
    for number in range(LAYERS):
        kind = _KINDS[number % len(_KINDS)]
        structure = kind.structures[turns[kind] % len(kind.structures)]
        turns[kind] += 1
        workload, weight = _drawn(rng, kind, structure, _EPILOGUES[int(rng.integers(len(_EPILOGUES)))])
        found.append(_task(f"{structure} {number}", workload, weight, target))
    return found


def _drawn(
    rng: np.random.Generator, kind: _Kind, structure: str, epilogue: Epilogue
) -> tuple[ConvWorkload, NDArray[np.float32]]:
    """A layer of a kind whose sizes are drawn until it is small enough, with its weight pruned."""
    while True:
        channels, filters = (int(value) for value in rng.choice(CHANNELS, 2))
        size, density = int(rng.choice(SIZES)), float(rng.choice(DENSITIES))
        if kind.product:
            channels, filters, size = 4 * channels, 4 * filters, 1
        workload = ConvWorkload(
            batch=1,
            in_channels=channels,
            height=size,
            width=size,
            out_channels=channels if kind.depthwise else filters,
            kernel=(kind.kernel, kind.kernel),
            stride=(kind.stride, kind.stride),
            padding=(kind.kernel // 2,) * 4,
            groups=channels if kind.depthwise else 1,
            epilogue=epilogue,
        )
        kept = workload.macs * (1.0 if structure == DENSE else density)
        if kept <= MOST_KEPT and workload.macs <= MOST_MACS and channels * size**2 <= MOST_INPUTS:
            break
    weight = rng.standard_normal(workload.weight_shape).astype(np.float32)
    return workload, pruned(weight, "linear" if kind.product else "conv2d", workload.groups, structure, density)


def pruned(weight: Weight, op: str, groups: int, structure: str, density: float) -> Weight:
    """A weight [filters, channels / groups, rows, columns] by magnitude, to the structure that applies, if any does."""
    if structure == DENSE:
        return weight
    fits, params, _ = fitting(op, weight.shape, groups, structure)
    return weight if fits == DENSE else project(fits, weight, density, groups=groups, **params)


def _task(name: str, workload: ConvWorkload, weight: NDArray[np.float32], target: Target) -> Task:
    """The layer in the layouts that are best for it, its output in one that a 3x3 layer reads."""
    op = "linear" if workload.is_product else "conv2d"
    bias = np.zeros(workload.out_channels, np.float32)
    fused_op = FusedOp(None, op, None, weight, bias, None, None, frozenset(), workload, ())
    layer = layer_of(fused_op, name)
    if workload.is_product:
        return Task((name,), layer, target, None, None, (0, 0))
    output = _output(workload, target)
    residual = output if workload.epilogue.residual else None
    sources = [Places(source, output, residual) for source in layouts(workload, target.core.isa)]
    places = min(sources, key=lambda places: predicted(layer, target, places).choice.cycles)
    return Task((name,), layer, target, places, None, (0, 0))


def _output(workload: ConvWorkload, target: Target) -> PlaneLayout:
    """What a 3x3 layer behind it would read."""
    reader = ConvWorkload(
        1, workload.out_channels, workload.out_height, workload.out_width, 1, (3, 3), padding=(1, 1, 1, 1)
    )
    writable = (layout for layout in layouts(reader, target.core.isa) if layout.writable)
    return next(writable, plain_layout(workload.out_channels, workload.out_height, workload.out_width))
