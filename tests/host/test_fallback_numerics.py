"""What no convolution takes, through the whole compiler, over many shapes, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.host

from pconvgen.compiler import compile as compile_model  # noqa: E402

Shape = tuple[int, ...]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


class One(Function):
    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Two(Function):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.function(x, y)


class Three(Function):
    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return self.function(x, y, z)


def check(function: Callable[..., Any], *shapes: Shape, data: list[torch.Tensor] | None = None) -> None:
    """Compiles a function of tensors of these shapes and compares what it gives with PyTorch."""
    data = data or [torch.from_numpy(np.random.default_rng(len(s)).standard_normal(s).astype("f")) for s in shapes]
    module = {1: One, 2: Two, 3: Three}[len(data)](function)
    compiled = compile_model(module, example=tuple(data))
    found = compiled.run(dict(zip("xyz", (each.numpy() for each in data), strict=False)))
    expected = function(*data)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for one, other in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=2e-6, atol=2e-6)


def test_reductions_of_one_element_and_what_follows_them() -> None:
    weight, bias = torch.tensor([[[2.0]], [[3.0]]]), torch.tensor([5.0, 7.0])

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        one = x[:, :, :1]
        return (
            functional.conv1d(x, weight, bias, groups=2),
            functional.conv1d(x, weight, bias, groups=2).sigmoid(),
            one.sum(2) + 1,
            2 * one.amax(2) - 3,
            one.mean(2, keepdim=True) + x,
        )

    check(function, (1, 2, 7))


def test_transposed_convolutions_of_volumes() -> None:
    weight, bias = torch.linspace(-1, 1, 4 * 2 * 2 * 3 * 3).reshape(4, 2, 2, 3, 3), torch.tensor([5.0, 7.0, 1.0, 2.0])

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            functional.conv_transpose3d(x, weight, None, 2, 1, 1),
            functional.conv_transpose3d(x, weight, bias, (1, 2, 3), (0, 1, 2), groups=2, dilation=(2, 1, 1)),
        )

    check(function, (2, 4, 3, 4, 5))


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


CASES: dict[str, tuple[Any, ...]] = {
    "gate": (lambda x, y: x * torch.sigmoid(y), (2, 19, 13, 9), (2, 19, 1, 1)),
    "large sum": (lambda x, y: torch.relu(x + y), (1, 64, 57, 31), (1, 64, 57, 31)),
    "chain of five axes": (lambda x: (x * 2 + 1).clamp(-1, 3) / 3, (2, 3, 5, 7, 11)),
    "vector": (lambda x: x * x - x, (100003,)),
    "rank 2": (lambda x, y: torch.minimum(x, y), (37, 1001), (1, 1001)),
    "three channels joined": (
        lambda x, y, z: torch.cat([x, y, z], 1),
        (2, 33, 29, 31),
        (2, 8, 29, 31),
        (2, 1, 29, 31),
    ),
    "columns joined": (lambda x, y: torch.cat([x, y], 3), (2, 3, 17, 5), (2, 3, 17, 40)),
    "join, scale, activation": (
        lambda x, y: functional.silu(torch.cat([x, y], 1) * 0.5),
        (1, 48, 33, 31),
        (1, 3, 33, 31),
    ),
    "halves": (lambda x: tuple(x.chunk(2, 1)), (1, 34, 31, 33)),
    "cut": (lambda x: x[:, 3:30:2, 2:-3, 1:], (2, 31, 20, 33)),
    "shuffle": (lambda x: shuffled(x, 3), (1, 51, 29, 31)),
    "pixel shuffle": (lambda x: functional.pixel_shuffle(x, 2), (1, 32, 29, 31)),
    "pixel unshuffle": (lambda x: functional.pixel_unshuffle(x, 3), (1, 5, 33, 30)),
    "padding": (lambda x: functional.pad(x, (1, 2, 3, 4), value=1.5), (1, 40, 31, 29)),
    "to channels last": (lambda x: x.permute(0, 2, 3, 1).contiguous() * 1.0, (2, 35, 19, 23)),
    "from channels last": (lambda x: x.permute(0, 3, 1, 2).contiguous() * 1.0, (1, 40, 33, 67)),
    "transposed": (lambda x: x.t() + 0.0, (131, 259)),
    "mean of rows": (lambda x: x.mean(-1), (96, 3136)),
    "mean of odd rows": (lambda x: x.mean(-1), (7, 9, 37)),
    "sum of everything": (lambda x: x.sum(), (2, 31, 7, 49)),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), (2, 33, 40, 41)),
    "maximum of channels and rows": (lambda x: x.amax((1, 2)), (3, 17, 19, 64)),
    "class of pixels": (lambda x: x.argmax(1), (1, 21, 65, 67)),
    "class of rows": (lambda x: x.argmax(-1), (37, 1000)),
    "softmax of rows": (lambda x: torch.softmax(8 * x, -1), (65, 1000)),
    "softmax of channels": (lambda x: torch.softmax(x, 1), (2, 21, 33, 35)),
    "log softmax": (lambda x: functional.log_softmax(x, -1), (9, 77)),
    "layer norm": (lambda x: functional.layer_norm(x, (96,)), (2, 196, 96)),
    "product": (lambda x, y: x @ y, (4, 49, 32), (4, 32, 49)),
    "decode": (
        lambda x: torch.cat([torch.sigmoid(x[..., :2]) * 2 - 0.5, (torch.sigmoid(x[..., 2:4]) * 2) ** 2], -1),
        (1, 3, 20, 20, 85),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fallback_operators(name: str) -> None:
    function, *shapes = CASES[name]
    check(function, *shapes)


RESIZES = [
    *(
        ({"scale_factor": f, "mode": "nearest"}, s)
        for f, s in ((2, (2, 5, 9, 33)), (3, (1, 3, 7, 21)), (4, (1, 2, 3, 65)))
    ),
    ({"scale_factor": 0.5, "mode": "nearest"}, (1, 3, 18, 70)),
    ({"size": (33, 47), "mode": "nearest"}, (2, 3, 20, 31)),
    *(
        ({"scale_factor": factor, "mode": "bilinear", "align_corners": corners}, shape)
        for corners in (False, True)
        for factor, shape in ((2, (2, 5, 14, 56)), (2, (1, 3, 7, 7)), (4, (1, 2, 9, 41)), (8, (1, 2, 4, 17)))
    ),
    ({"size": (40, 100), "mode": "bilinear"}, (1, 4, 27, 67)),
    ({"size": (13, 11), "mode": "bilinear"}, (1, 4, 27, 43)),
    ({"size": (3, 1), "mode": "bilinear"}, (1, 4, 27, 43)),
    ({"size": (513, 513), "mode": "bilinear", "align_corners": False}, (1, 2, 65, 65)),
    ({"scale_factor": 2, "mode": "bicubic"}, (1, 3, 11, 35)),
]


@pytest.mark.parametrize("case", range(len(RESIZES)))
def test_resized(case: int) -> None:
    options, shape = RESIZES[case]
    data = torch.from_numpy(np.random.default_rng(case).standard_normal(shape).astype("f"))
    compiled = compile_model(One(lambda x: functional.interpolate(x, **options)), example=(data,))
    (found,) = compiled.run(data.numpy()).values()
    expected = functional.interpolate(data, **options).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


def test_softmax_of_infinities() -> None:
    """Minus infinity has no share; NaN makes its row NaN, and no other."""
    data = torch.randn(4, 70)
    data[0, ::3] = -np.inf
    data[1, 5] = np.nan
    data[2] *= 1e30
    data[3, 1:] = -np.inf
    check(lambda x: torch.softmax(x, -1), data=[data])


def test_elementary_functions_of_every_size() -> None:
    """exp and sigmoid from where they are zero to where they are infinite."""
    data = torch.cat(
        [torch.linspace(-120, 100, 50001), torch.tensor([np.inf, -np.inf, np.nan, 0.0, -0.0, 88.72, 88.73])]
    )
    check(torch.exp, data=[data])
    check(torch.sigmoid, data=[data])
