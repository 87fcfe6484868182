"""Layers that are split compute what PyTorch computes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.model import CompiledModel
from pconvgen.planning.choose import plan_layer
from tests.mixtures import mixture
from tests.networks import TOLERANCE, relative_error

pytestmark = pytest.mark.host


@pytest.fixture
def _always_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits every layer that can be, whatever is predicted: small layers would not be."""
    monkeypatch.setattr("pconvgen.planning.choose.SPLIT_GAIN", 0)
    monkeypatch.setattr("pconvgen.planning.convolution.CONTENDER", math.inf)


def mixed(model: nn.Module) -> nn.Module:
    """`model` with mixtures of blocks and scattered weights in its convolutions."""
    for seed, layer in enumerate(layer for layer in model.modules() if isinstance(layer, nn.Conv2d)):
        weight = mixture(tuple(layer.weight.shape), 0.15, 0.1, groups=layer.groups, seed=seed)
        weight *= (layer.weight.detach().abs().mean() * 2).item()
        layer.weight.data = torch.from_numpy(weight)
    return model.eval()


def split_layers(compiled: CompiledModel) -> list[str]:
    return [decision.name for decision in compiled.decisions if decision.choice.endswith(" + unstructured")]


class Block(nn.Module):
    """A layer with everything behind it, and one with nothing."""

    def __init__(self, filters: int, kernel: int, stride: int, groups: int, padding: int) -> None:
        super().__init__()
        options = {"stride": stride, "groups": groups, "padding": padding}
        self.layer = nn.Conv2d(groups * 16, filters, kernel, **options)  # type: ignore[arg-type]
        self.other = nn.Conv2d(groups * 16, filters, kernel, bias=False, **options)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardswish(self.layer(x) + self.other(x))


@pytest.mark.usefixtures("_always_split")
@pytest.mark.parametrize(
    ("batch", "size", "filters", "kernel", "stride", "groups", "padding"),
    [
        (1, (14, 14), 16, 3, 1, 1, 1),
        (2, (9, 31), 12, 3, 1, 1, 1),
        (2, (15, 17), 13, 3, 2, 1, 1),
        (1, (12, 11), 30, 3, 1, 3, 0),
        (3, (7, 7), 24, 1, 1, 1, 0),
        (2, (20, 13), 16, 1, 2, 2, 0),
        (1, (33, 16), 10, 5, 3, 1, 2),
    ],
)
def test_any_layer(
    batch: int, size: tuple[int, int], filters: int, kernel: int, stride: int, groups: int, padding: int
) -> None:
    torch.manual_seed(0)
    model = mixed(Block(filters, kernel, stride, groups, padding))
    imported = pconvgen.load_model(model, example=(torch.randn(batch, groups * 16, *size),))
    # By the analytic model, whatever a model that was learned on this machine would choose.
    compiled = pconvgen.compile(imported, planner=plan_layer)
    assert split_layers(compiled) == ["layer", "other"]
    assert relative_error(compiled) < 1e-5


class Branches(nn.Module):
    """Residuals, strides, and inputs and outputs that are parts of larger buffers, in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 32, 3, padding=1)
        self.left = nn.Conv2d(32, 16, 3, padding=1)
        self.right = nn.Conv2d(32, 24, 1)
        self.shuffled = nn.Conv2d(40, 40, 3, padding=1, stride=2)
        self.point = nn.Conv2d(40, 40, 1)
        self.classes = nn.Linear(40, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = torch.cat([self.left(x), nn.functional.silu(self.right(x))], 1)
        x = nn.functional.channel_shuffle(x, 4)
        x = self.shuffled(x).relu()
        return self.classes((self.point(x) + x).relu().mean((2, 3)))


@pytest.mark.usefixtures("_always_split")
def test_a_whole_network() -> None:
    torch.manual_seed(0)
    imported = pconvgen.load_model(mixed(Branches()), example=(torch.randn(2, 16, 19, 21),))
    # By the analytic model, whatever a model that was learned on this machine would choose.
    compiled = pconvgen.compile(imported, planner=plan_layer)
    assert split_layers(compiled) == ["stem", "left", "right", "shuffled", "point"]
    assert relative_error(compiled) < TOLERANCE


def test_a_layer_that_chooses_it() -> None:
    """With the decision of this machine, which may be another one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).eval()
    model[0].weight.data = torch.from_numpy(mixture((64, 64, 3, 3), 0.07, 0.05))
    compiled = pconvgen.compile(pconvgen.load_model(model, example=(torch.randn(1, 64, 28, 28),)))
    assert relative_error(compiled) < 1e-5
