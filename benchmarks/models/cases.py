"""The networks of `make bench-networks` and how each is pruned: batch 1, random weights, the same for all engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.models import NETWORKS
from benchmarks.models.weights import randomize
from pconvgen.frontend.torch.weights import module_layers
from pconvgen.sparsify import sparsify
from pconvgen.sparsity import density, project

NORM_SIZE = 64
"""Height and width of the images that batch norms get their statistics from."""


@dataclass(frozen=True)
class Variant:
    """One way to prune a network.

    Attributes
    ----------
    structure: key of STRUCTURES; layers that it does not apply to get SIMD blocks.
    density: share of the weights that is left in each layer.
    layers: globs of the layers; none for all but the first convolution and the last linear layer.
    """

    structure: str
    density: float
    layers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As tables print it, e.g. "simd_block 8x"."""
        return f"{self.structure} {1 / self.density:g}x"


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes
    ----------
    network: key of NETWORKS.
    title: its usual name.
    size: height and width of the image.
    variants: how it is pruned.
    options: of the network's factory.
    scaling: whether two threads are measured as well.
    tuned: whether TVM is tuned for it.
    """

    network: str
    title: str
    size: int
    variants: tuple[Variant, ...]
    options: dict[str, Any] = field(default_factory=dict)
    scaling: bool = False
    tuned: bool = False

    def build(self) -> nn.Module:
        """The network; equal weights on every call."""
        torch.manual_seed(0)
        return randomize(NETWORKS[self.network](**self.options), 0, NORM_SIZE)

    def pruned(self, variant: Variant) -> nn.Module:
        """The same, pruned."""
        model = self.build()
        sparsify(model, variant.structure, variant.density, variant.layers)
        return model

    def unstructured(self, variant: Variant) -> nn.Module:
        """The same with as many weights in each layer as `pruned` has, the largest ones wherever they are."""
        model = self.build()
        for layer, pruned in zip(module_layers(model), module_layers(self.pruned(variant)), strict=True):
            assert layer.weight is not None
            assert pruned.weight is not None
            kept = density(pruned.weight)
            if kept < 1:
                layer.store(project("unstructured", layer.weight, kept, groups=layer.groups))
        return model

    def image(self) -> torch.Tensor:
        """The input, always the same."""
        return torch.randn(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))


VGG_LAYERS = ("features.[1-9]*", "classifier.*")
_POINTWISE = (Variant("simd_block", 0.4),)

CASES = (
    Case(
        "vgg16_bn",
        "VGG-16-BN",
        224,
        (Variant("simd_block", 0.125, VGG_LAYERS), Variant("pattern", 0.125, VGG_LAYERS)),
        scaling=True,
    ),
    Case("resnet50", "ResNet-50", 224, (Variant("simd_block", 0.25), Variant("pattern", 0.25)), scaling=True),
    Case("mobilenet_v2", "MobileNet-V2", 224, _POINTWISE),
    Case("mobilenet_v1", "MobileNet-V1", 224, _POINTWISE, tuned=True),
    Case("efficientnet_b0", "EfficientNet-B0", 224, _POINTWISE),
    Case("yolo", "YOLO-style detector", 320, (Variant("simd_block", 0.25),)),
    Case("unet", "U-Net, half width", 256, (Variant("simd_block", 0.25),), options={"width": 0.5}),
)


def case_of(network: str) -> Case:
    """The case of a key of NETWORKS. Raises StopIteration when there is none."""
    return next(case for case in CASES if case.network == network)
