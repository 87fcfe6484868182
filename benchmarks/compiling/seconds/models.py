"""Models whose compiling is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.models import NETWORKS
from benchmarks.models.cases import CASES

Made = tuple[nn.Module, torch.Tensor]

JOINS = (("DenseNet-121", "densenet", 1.0, 224), ("detector, YOLOv8n's size", "yolo", 0.25, 320))
"""Networks of many concatenations: names, keys of NETWORKS, widths and sizes of the image."""
IMAGES = ((1, 3_000), (1, 300_000), (100_000, 3), (2160, 3840))
"""Heights and widths of images for two layers."""
PATCHES = (7, 12, 16, 32)
"""Sizes of patches for one layer whose stride is its kernel."""


def layers(height: int, width: int) -> Made:
    """Two layers of an image."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    return model.eval(), torch.zeros(1, 3, height, width)


def patches(size: int) -> Made:
    """What cuts an image into patches and embeds them."""
    return nn.Conv2d(3, 32, size, stride=size).eval(), torch.zeros(1, 3, 96, 96)


def models() -> Iterator[tuple[str, Callable[[], Made]]]:
    """(name, what makes the model and its input)."""
    for case in CASES:
        yield case.network, lambda case=case: (case.build(), case.image())
        for variant in case.variants:
            made = lambda case=case, variant=variant: (case.pruned(variant), case.image())  # noqa: E731
            yield f"{case.network} {variant.name}", made
    for name, network, width, size in JOINS:
        image = torch.zeros(1, 3, size, size)
        yield name, lambda network=network, width=width, image=image: (NETWORKS[network](width=width).eval(), image)
    for height, width in IMAGES:
        yield f"image {height}x{width}", lambda height=height, width=width: layers(height, width)
    for size in PATCHES:
        yield f"patches {size}x{size}", lambda size=size: patches(size)
