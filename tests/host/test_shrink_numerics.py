"""Removing dead channels of random networks and of the zoo's."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import ZOO

from benchmarks.models import NETWORKS
from pconvgen.compiler import compile as compile_model
from pconvgen.passes.lower import decisions_of
from pconvgen.passes.shrink import RemoveDeadChannels
from pconvgen.pipeline import run
from tests.shrinking import assert_equal, empty, imported_from, shapes, shrunk

pytestmark = pytest.mark.host


ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Identity, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU]


class RandomNet(nn.Module):
    """A random chain of convolutions, shortcuts, gates, pools, activations and concats."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.kinds: list[str] = []
        channels = 3
        for _ in range(int(rng.integers(4, 9))):
            kind = str(rng.choice(["conv", "conv", "pointwise", "depthwise", "shortcut", "gate", "pool", "concat"]))
            filters = int(rng.integers(2, 9))
            if kind == "conv":
                step: nn.Module = nn.Conv2d(channels, filters, 3, padding=int(rng.integers(2)))
            elif kind == "pointwise":
                step = nn.Conv2d(channels, filters, 1, bias=bool(rng.integers(2)))
            elif kind == "depthwise":
                step = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            elif kind == "shortcut":
                step = nn.Sequential(
                    nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.Conv2d(filters, channels, 1)
                )
            elif kind == "gate":
                step = nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, filters, 1), nn.ReLU(), nn.Conv2d(filters, channels, 1)
                )
            else:
                step = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)][rng.integers(2)]
            if kind in ("conv", "pointwise"):
                channels = filters
            self.kinds.append(kind)
            self.steps.append(nn.Sequential(step, ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()))
            channels *= 2 if kind == "concat" else 1
        self.fc = nn.Linear(channels, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                rows = np.flatnonzero(rng.random(len(layer.weight)) < 0.35).tolist()
                columns = np.flatnonzero(rng.random(layer.weight.shape[1]) < 0.25).tolist()
                bias = None if layer.bias is None or rng.random() < 0.3 else 0
                empty(layer, filters=rows, channels=columns if layer.groups == 1 else [], bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        for kind, step in zip(self.kinds, self.steps, strict=True):
            if kind == "shortcut":
                x = x + step(x)
            elif kind == "gate":
                x = x * step(x)
            else:
                x = torch.cat([x, step(x)], 1) if kind == "concat" else step(x)
        return self.fc(x.mean((2, 3)))


def test_random_networks_compute_the_same() -> None:
    smaller = 0
    for seed in range(20):
        torch.manual_seed(seed)
        model = RandomNet(np.random.default_rng(seed))
        try:
            smaller += bool(shrunk(model, torch.randn(2, 3, 18, 18)))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {model.kinds}") from error
    assert smaller >= 10


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU])
def test_compiled_constants_behind_activations(activation: type[nn.Module]) -> None:
    """Channels of a constant are removed, and the kernels that are left apply the activation to the others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), activation(), nn.Conv2d(8, 4, 1), activation())
    for filters, bias in (([0], 0), ([1, 2], -0.7), ([5], 2)):
        empty(model[0], filters=filters, bias=bias)
    x = torch.randn(1, 3, 9, 9)
    compiled = compile_model(imported_from(model, x))
    assert_equal(compiled.run(x.numpy()).values(), model, x)
    assert "4 of 8 filters" in compiled.decisions[0].reason


def with_empty_filters(name: str) -> tuple[nn.Module, Tensor]:
    model = ZOO[name].build()
    rng = np.random.default_rng(0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            empty(layer, filters=np.flatnonzero(rng.random(len(layer.weight)) < 0.3).tolist())
    return model, ZOO[name].example()


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "mobilenet_v2"])
def test_networks_with_empty_filters(name: str) -> None:
    assert shrunk(*with_empty_filters(name))


def test_a_compiled_network_with_empty_filters() -> None:
    """With our own kernels behind the pass."""
    model, x = with_empty_filters("mobilenet_v3")
    compiled = compile_model(imported_from(model, x))
    assert_equal(compiled.run(x.numpy()).values(), model, x)
    dense = decisions_of(run(compiled.imported.module, compiled.target, dense=True))
    assert [decision.name for decision in compiled.decisions] == [decision.name for decision in dense]
    assert sum(decision.nbytes for decision in compiled.decisions) < 0.9 * sum(decision.nbytes for decision in dense)
    # What is told is the model's own layer, not what is left of it.
    for ours, whole in zip(compiled.decisions, dense, strict=True):
        assert (ours.name, ours.shape, ours.macs) == (whole.name, whole.shape, whole.macs)
    removed = [decision for decision in compiled.decisions if "channels removed" in decision.reason]
    assert removed
    assert all(decision.structure != "dense" and decision.density < 1 for decision in removed)


def test_resnet50_takes_little_time() -> None:
    model = NETWORKS["resnet50"]()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            empty(layer, channels=list(range(0, layer.weight.shape[1], 2)) if layer.weight.shape[1] > 3 else [])
    imported = imported_from(model, torch.zeros(1, 3, 224, 224))
    start = time.perf_counter()
    module = RemoveDeadChannels()(imported.module)
    assert time.perf_counter() - start < 2
    assert shapes(module)["layer4.2.conv2"] == (256, 256, 3, 3)
