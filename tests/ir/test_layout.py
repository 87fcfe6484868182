"""Activations stay in the layout of their readers: what is copied between kernels, and who shares a buffer."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.models import NETWORKS
from benchmarks.models.weights import randomize
from pconvgen import compiler
from pconvgen.compiler import compile as compile_model
from pconvgen.frontend import load_model
from pconvgen.pipeline import phases
from pconvgen.planning.elimination import Table, least
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from tests.relax_modules import HOST, calls

COPIES = {
    # The input of the network.
    "densenet": 1,
    "efficientnet_b0": 1,
    "inception": 1,
    "mobilenet_v1": 1,
    "mobilenet_v2": 1,
    "mobilenet_v3": 1,
    "shufflenet": 1,
    "vgg16_bn": 1,
    # Its first layer reads NCHW as it is.
    "squeezenet": 0,
    # And a quarter of the pixels for shortcuts with stride 2, which pays.
    "resnet18": 3,
    "resnet50": 4,
}
"""Most copies from one layout into another in networks without operators that have no kernel."""


def lowered(model: nn.Module, *shape: int) -> Any:
    """The module after layers became calls of kernels."""
    module = load_model(model.eval(), example=(torch.zeros(shape),)).module
    for name, phase in phases(HOST):
        module = phase(module)
        if name == "lower":
            return module
    raise AssertionError


def small(network: str) -> nn.Module:
    torch.manual_seed(0)
    model = randomize(NETWORKS[network](width=0.25), 0, 64)
    sparsify(model, "simd_block", 0.25)
    return model


@pytest.mark.parametrize("network", COPIES)
def test_nothing_is_copied_between_layers(network: str) -> None:
    found = calls(lowered(small(network), 1, 3, 64, 64))
    others = {"pixel", "winograd", "channel", "pool", "globalpool", "pointwise", "pack"}
    assert found["pack"] <= COPIES[network], found
    # What is left besides: views, and the head of VGG.
    assert found.keys() - others <= {"relax.reshape", "relax.nn.adaptive_avg_pool2d"}, found


def test_many_images_are_no_reason_to_copy() -> None:
    assert calls(lowered(small("vgg16_bn"), 64, 3, 64, 64))["pack"] <= COPIES["vgg16_bn"]


class Branches(nn.Module):
    """Concatenation, split and channel shuffle between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(16, 8, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.stem(x).chunk(2, 1)
        joined = torch.cat([self.left(first).relu(), self.right(second)], 1)
        n, c, h, w = joined.shape
        shuffled = joined.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.last(shuffled)


def test_concatenation_split_and_shuffle_are_places() -> None:
    found = calls(lowered(Branches(), 1, 3, 16, 16))
    assert found == Counter(pack=1, pixel=4)


class Shared(nn.Module):
    """A tensor that convolutions of several strides, a pool and the caller read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.readers = nn.ModuleList(
            [nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, dilation=2, padding=2)]
        )
        self.strided = nn.ModuleList([nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1, 2), nn.MaxPool2d(3, 2, 1)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.stem(x).relu()
        return y, sum(reader(y) for reader in self.readers), torch.cat([reader(y) for reader in self.strided], 1), x + 1


@pytest.mark.host
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("model", [Branches(), Shared()], ids=["branches", "shared"])
def test_answers_are_pytorchs(model: nn.Module, batch: int) -> None:
    imported = load_model(model.eval(), example=(torch.zeros(batch, 3, 17, 22),))
    compiled = compile_model(imported)
    inputs = compiled.manifest.random_inputs(0)
    for expected, found in zip(imported.reference(inputs).values(), compiled.run(inputs).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_equal_networks_get_equal_layouts() -> None:
    first, second = (compile_model(load_model(small("resnet18"), example=(torch.zeros(1, 3, 64, 64),))) for _ in "ab")
    assert first.decisions == second.decisions


class Residuals(nn.Module):
    """Few tensors, each with readers of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.last(x + self.point(self.depthwise(x)))


@pytest.mark.parametrize("target", ["cortex-a76", "cortex-a7", "host"])
@pytest.mark.parametrize("model", [Residuals(), Branches()], ids=["residuals", "branches"])
def test_no_other_layouts_are_faster(model: nn.Module, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def checked(sizes: list[int], tables: list[Table]) -> list[int]:
        def cost(chosen: tuple[int, ...]) -> float:
            return sum(table.costs[tuple(chosen[variable] for variable in table.scope)] for table in tables)

        found = least(sizes, tables)
        tried.append(np.prod(sizes))
        assert cost(tuple(found)) == pytest.approx(min(map(cost, product(*map(range, sizes)))))
        return found

    monkeypatch.setattr("pconvgen.planning.layout.least", checked)
    monkeypatch.setattr("pconvgen.planning.layout.OPTIONS", 4)
    compiler.lower(load_model(model.eval(), example=(torch.zeros(1, 3, 21, 30),)), get_target(target))
    assert len(tried) == 1
    assert tried[0] >= 30
