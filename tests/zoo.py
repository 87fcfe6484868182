"""The networks of benchmarks/models in a size that a test can afford."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.models import NETWORKS
from benchmarks.models.weights import randomize


@dataclass(frozen=True)
class ZooEntry:
    """One network.

    Attributes
    ----------
    name: key of NETWORKS.
    options: arguments of the factory that make it small.
    shape: a small input's shape, NCHW.
    input_name: the argument name of forward().
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int, int] = (1, 3, 64, 64)
    input_name: str = "x"

    def build(self, seed: int = 0) -> nn.Module:
        """The small network, randomised, in evaluation mode."""
        torch.manual_seed(seed)
        return randomize(NETWORKS[self.name](**self.options), seed, self.shape[-1])

    def example(self, seed: int = 0) -> torch.Tensor:
        """A random input, float32, of `shape`."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))


_SMALL = {"num_classes": 10, "width": 0.25}

ZOO: dict[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        ZooEntry("vgg16_bn", {**_SMALL, "pool": 1, "hidden": 64}, (1, 3, 32, 32)),
        ZooEntry("resnet18", {**_SMALL, "small_stem": True}, (1, 3, 32, 32)),
        ZooEntry("resnet50", _SMALL),
        ZooEntry("mobilenet_v1", _SMALL),
        ZooEntry("mobilenet_v2", _SMALL),
        ZooEntry("mobilenet_v3", {"num_classes": 10, "width": 0.5}),
        ZooEntry("squeezenet", _SMALL),
        ZooEntry("inception", _SMALL),
        ZooEntry("efficientnet_b0", _SMALL),
        ZooEntry("unet", {"num_classes": 2, "width": 0.125}, (1, 3, 32, 32), "image"),
        ZooEntry("densenet", {**_SMALL, "depths": (2, 2, 2)}),
        ZooEntry("shufflenet", _SMALL),
    )
}
