"""The layers that kernels are measured on, batch 1, with bias and ReLU, and how their weights are pruned.

| group | layers |
| --- | --- |
| 3x3 | channels @ height = width, as many filters as channels, padding 1 |
| 1x1 | every distinct 1x1 convolution of ResNet-50 at 224x224 |
| strided | its other convolutions with a stride |
| depthwise | every distinct depthwise convolution of MobileNet-V2 at 224x224 |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from benchmarks.models.mobilenet import mobilenet_v2
from benchmarks.models.resnet import resnet50
from pconvgen.values.workload import RELU, ConvWorkload, Epilogue

SQUARES = ((64, 56), (128, 28), (256, 14), (512, 7), (256, 28), (512, 14), (128, 112), (64, 224))
"""The 3x3 layers: channels, height and width."""

GROUPS = ("3x3", "1x1", "strided", "depthwise")
DENSITIES = (0.05, 0.125, 0.25, 0.5, 1.0)
EPILOGUE = Epilogue(bias=True, activation=RELU)


@dataclass(frozen=True)
class Layer:
    """One layer: a row of every table.

    Attributes
    ----------
    group: one of GROUPS.
    name: "64@56" for 64 channels of 56x56 in and out, "64-256@56" with 256 filters, "256-512@56/2" with stride 2.
    workload: its shapes.
    """

    group: str
    name: str
    workload: ConvWorkload


@dataclass(frozen=True)
class Pruning:
    """One way to prune a weight.

    Attributes
    ----------
    name: as tables print it.
    structure: key of STRUCTURES.
    params: keywords of its `project`.
    """

    name: str
    structure: str
    params: dict[str, Any] = field(default_factory=dict)

    def suits(self, layer: Layer, density: float) -> bool:
        """Whether the layer is measured so: only dense weights have all their weights, and shapes must allow it."""
        if (self.structure == "dense") != (density == 1.0):
            return False
        w = layer.workload
        if self.structure == "dense":
            return True
        if self.structure == "pattern":
            return w.kernel != (1, 1) and w.in_channels > 3
        return w.groups == 1 and w.in_channels > 3


DENSE = Pruning("dense", "dense")

PRUNINGS = (
    Pruning("simd_block(4)", "simd_block", {"n": 4}),
    Pruning("simd_block(8)", "simd_block", {"n": 8}),
    Pruning("simd_block(16)", "simd_block", {"n": 16}),
    Pruning("block_punched(8x4)", "block_punched", {"filters": 8, "channels": 4}),
    # The 8 patterns that suit random weights best, and the kernels of largest norm: random connectivity. At 12.5 % of
    # the weights 28 % of the kernels live; patterns of 4 of 9 weights end at 44 %, where all kernels live.
    Pruning("pattern", "pattern", {"balanced": False}),
    Pruning("unstructured", "unstructured"),
    DENSE,
)


@cache
def layers() -> tuple[Layer, ...]:
    """All layers, by group."""
    squares = [named("3x3", square(c, c, size)) for c, size in SQUARES]
    resnet = convolutions(resnet50())
    pointwise = [named("1x1", w) for w in resnet if w.kernel == (1, 1)]
    strided = [named("strided", w) for w in resnet if w.kernel != (1, 1) and w.stride != (1, 1)]
    depthwise = [named("depthwise", w) for w in convolutions(mobilenet_v2()) if w.groups > 1]
    return (*squares, *pointwise, *strided, *depthwise)


def convolutions(network: torch.nn.Module) -> list[ConvWorkload]:
    """The distinct convolutions of a network at 224x224, in the order in which they run."""
    found: dict[ConvWorkload, None] = {}

    def remember(conv: torch.nn.Conv2d, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        channels, size = inputs[0].shape[1:3]
        (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
        found[_workload(channels, conv.out_channels, size, kernel, stride, padding, conv.groups)] = None

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(remember)
    # Shapes are all that is wanted: tensors of the meta device have nothing else.
    network.to("meta").eval()(torch.empty(1, 3, 224, 224, device="meta"))
    return list(found)


def named(group: str, w: ConvWorkload) -> Layer:
    """A layer with the name that tables print, see `Layer`."""
    channels = str(w.in_channels) if w.in_channels == w.out_channels else f"{w.in_channels}-{w.out_channels}"
    stride = "" if w.stride == (1, 1) else f"/{w.stride[0]}"
    return Layer(group, f"{channels}@{w.height}{stride}", w)


def square(channels: int, filters: int, size: int) -> ConvWorkload:
    """A 3x3 layer of stride 1 whose output is as high and wide as its input."""
    return _workload(channels, filters, size, 3, 1, 1, 1)


def _workload(
    channels: int, filters: int, size: int, kernel: int, stride: int, padding: int, groups: int
) -> ConvWorkload:
    return ConvWorkload(
        1,
        channels,
        size,
        size,
        filters,
        (kernel, kernel),
        (stride, stride),
        (padding,) * 4,
        groups=groups,
        epilogue=EPILOGUE,
    )
