"""Batches and image sizes that no one tunes for: the answers stay PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pconvgen
from benchmarks.models import NETWORKS
from benchmarks.models.weights import randomize
from pconvgen.frontend import load_model
from pconvgen.sparsify import sparsify
from tests.networks import TOLERANCE, relative_error
from tests.zoo import ZOO

pytestmark = pytest.mark.host


def error(model: nn.Module, structure: str | None, *shape: int) -> float:
    """The relative error of the compiled model, pruned to a structure."""
    if structure is not None:
        sparsify(model, structure, 0.25)
    return relative_error(pconvgen.compile(load_model(model, example=(torch.zeros(shape),))))


# (network, structure, shape): small batches, and sides that are prime, odd, far apart or one pixel.
CASES: list[tuple[str, str | None, tuple[int, ...]]] = [
    ("squeezenet", "pattern", (2, 3, 97, 131)),
    ("resnet18", "unstructured", (3, 3, 33, 47)),
    ("unet", "simd_block", (3, 3, 16, 40)),
    ("resnet18", "block_punched", (1, 3, 64, 1)),
    ("mobilenet_v1", None, (8, 3, 1, 67)),
]


@pytest.mark.parametrize(
    ("name", "structure", "shape"), CASES, ids=[f"{n}-{s}-{'x'.join(map(str, shape))}" for n, s, shape in CASES]
)
def test_batches_and_sizes(name: str, structure: str | None, shape: tuple[int, ...]) -> None:
    entry = ZOO[name]
    torch.manual_seed(0)
    options: dict[str, Any] = {**entry.options, "width": 0.125}
    model = randomize(NETWORKS[name](**options), 0, max(32, *shape[2:]))
    assert error(model, structure, *shape) <= TOLERANCE


class Camera(nn.Module):
    """A layer of each kind on a large picture, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.depthwise = nn.Conv2d(4, 4, 5, padding=2, groups=4)
        self.point = nn.Conv2d(4, 4, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.deep = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + self.point(self.depthwise(x).relu())
        return self.up(self.deep(self.pool(x)).relu())


def test_a_large_picture() -> None:
    torch.manual_seed(0)
    assert error(Camera().eval(), "pattern", 1, 3, 1080, 1920) <= TOLERANCE
