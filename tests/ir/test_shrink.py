"""Channels that nothing depends on are removed, and the network still computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pconvgen.passes.shrink import RemoveDeadChannels
from pconvgen.tvm_compat.relax import is_op, shape_of
from pconvgen.tvm_compat.rewriting import main_bindings
from tests.shrinking import assert_equal, empty, imported_from, run_plainly, shrunk


class Vgg(nn.Module):
    """Two convolutions, pools and a classifier."""

    def __init__(self, kernel: int = 3, pool: nn.Module | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.activation = activation or nn.ReLU()
        self.pool = pool or nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 6, kernel, padding=kernel // 2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv2(self.pool(self.activation(self.conv1(x)))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


IMAGE = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def test_nothing_dead_returns_the_same_module() -> None:
    imported = imported_from(Vgg(), IMAGE)
    assert RemoveDeadChannels()(imported.module).same_as(imported.module)


def test_channels_that_no_consumer_reads() -> None:
    model = Vgg()
    empty(model.conv2, channels=[1, 5])
    assert shrunk(model, IMAGE) == {"conv1": (6, 3, 3, 3), "conv2": (6, 6, 3, 3)}


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardswish(), nn.GELU(), nn.LeakyReLU(), nn.ReLU6()])
def test_any_activation_may_lie_before_a_consumer_that_does_not_read(activation: nn.Module) -> None:
    model = Vgg(activation=activation)
    empty(model.conv2, channels=[0, 7])
    assert shrunk(model, IMAGE)["conv1"] == (6, 3, 3, 3)


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, ceil_mode=True),
    nn.AdaptiveAvgPool2d(4),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_empty_filters_that_stay_zero(pool: nn.Module) -> None:
    model = Vgg(pool=pool)
    empty(model.conv1, filters=[0, 3], bias=0)
    empty(model.conv1, filters=[4], bias=-1)
    assert shrunk(model, IMAGE) == {"conv1": (5, 3, 3, 3), "conv2": (6, 5, 3, 3)}


def test_an_activation_may_make_zero_something_else() -> None:
    model = Vgg(activation=nn.Sigmoid())
    empty(model.conv1, filters=[0, 3], bias=0)
    assert shrunk(model, IMAGE) == {}


@pytest.mark.parametrize("bias", [0, -1, 0.7, -4])
@pytest.mark.parametrize(
    "activation",
    [nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.ReLU6(), nn.Sigmoid(), nn.Hardsigmoid()],
    ids=str,
)
def test_what_activations_make_of_constants(activation: nn.Module, bias: float) -> None:
    """It goes into the next layer's bias; zeros beside the data break it unless it is zero, too."""
    zero = float(activation(torch.tensor(float(bias)))) == 0
    for kernel, removed in ((1, True), (3, zero)):
        model = Vgg(kernel, activation=activation)
        empty(model.conv1, filters=[0, 3], bias=bias)
        expected = {"conv1": (6, 3, 3, 3), "conv2": (6, 6, kernel, kernel)}
        assert shrunk(model, IMAGE) == (expected if removed else {})


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_constants_move_into_the_bias_where_padding_does_not_break_them(kernel: int, pool: nn.Module) -> None:
    model = Vgg(kernel, pool)
    empty(model.conv1, filters=[0, 3], bias=0.5)
    broken = kernel == 3 or (isinstance(pool, nn.AvgPool2d))
    filters = 8 if broken else 6
    expected = {} if broken else {"conv1": (filters, 3, 3, 3), "conv2": (6, filters, kernel, kernel)}
    assert shrunk(model, IMAGE) == expected


def test_constants_need_one_addition_only() -> None:
    model = Vgg(1)
    empty(model.conv1, filters=[0, 3], bias=0.5)
    imported = imported_from(model, IMAGE)
    counts = [
        sum(is_op(binding.value, "relax.add") for binding in main_bindings(module))
        for module in (imported.module, RemoveDeadChannels()(imported.module))
    ]
    assert counts == [3, 3]
    model.conv2.bias = None
    assert shrunk(model, IMAGE)["conv2"] == (6, 6, 1, 1)


def test_constants_of_a_linear_layer_move_on() -> None:
    model = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3, bias=False))
    empty(model[0], filters=[2, 3], bias=0.7)
    empty(model[2], filters=[0])
    expected = {"0": (12, 7), "2": (7, 6), "4": (6, 3)}
    assert shrunk(model, torch.randn(4, 12)) == expected
    assert shrunk(model, torch.randn(2, 3, 12)) == expected


def test_filters_die_in_a_cascade() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4)))
    empty(model[3], channels=[0])
    model[2].weight.data[1:, 1] = 0
    model[1].weight.data[[0, 2, 3], 2] = 0
    expected = {"0": (3, 4, 1, 1), "1": (3, 3, 1, 1), "2": (3, 3, 1, 1), "3": (4, 3, 1, 1)}
    assert shrunk(model, torch.randn(1, 4, 5, 5)) == expected


def test_a_tensor_keeps_a_channel() -> None:
    model = Vgg()
    empty(model.conv2, channels=list(range(8)))
    assert shrunk(model, IMAGE) == {"conv1": (1, 3, 3, 3), "conv2": (1, 1, 3, 3), "fc": (1, 5)}


@pytest.mark.parametrize("tail", ["flatten", "reshape", "mean", "squeeze"])
def test_blocks_of_a_flattened_tensor(tail: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8 * (9 if tail in ("flatten", "reshape") else 1), 4)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.conv(x))
            if tail == "mean":
                return self.fc(x.mean((2, 3)))
            if tail == "squeeze":
                return self.fc(x.mean((2, 3), keepdim=True).squeeze(3).squeeze(2))
            return self.fc(torch.flatten(x, 1) if tail == "flatten" else x.reshape(x.shape[0], -1))

    model, x = Net(), torch.randn(2, 3, 5, 5)
    pixels = model.fc.in_features // 8
    empty(model.fc, channels=list(range(2 * pixels, 3 * pixels)))
    empty(model.conv, filters=[5], bias=0.25)
    if pixels > 1:
        empty(model.fc, channels=[0])  # one pixel of a channel is not the channel
    assert shrunk(model, x) == {"conv": (6, 3, 3, 3), "fc": (6 * pixels, 4)}


class Residual(nn.Module):
    """A stem, blocks with a shortcut, a head."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(8, 6, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(6, 8, 3, padding=1) for _ in range(blocks))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            x = functional.relu(x + second(functional.relu(first(x))))
        return self.head(x)


def test_a_residual_stream_shrinks_where_all_agree() -> None:
    model = Residual()
    empty(model.head, channels=[1, 4])
    empty(model.first[0], channels=[1, 4])
    empty(model.first[1], channels=[1])  # still reads channel 4
    empty(model.second[0], channels=[0])
    assert shrunk(model, IMAGE) == {
        "stem": (7, 3, 3, 3),
        "first.0": (5, 7, 3, 3),
        "second.0": (7, 5, 3, 3),
        "first.1": (6, 7, 3, 3),
        "second.1": (7, 6, 3, 3),
        "head": (4, 7, 1, 1),
    }


def test_a_residual_stream_of_zeros() -> None:
    model = Residual(1)
    empty(model.stem, filters=[2], bias=0)
    empty(model.second[0], filters=[2, 3], bias=0)
    assert shrunk(model, IMAGE)["head"] == (4, 7, 1, 1)


def test_a_channel_that_only_feeds_itself() -> None:
    model = Residual()
    empty(model.head, channels=[0])
    for first, second in zip(model.first, model.second, strict=True):
        first.weight.data[1:, 0] = 0  # only filter 0 reads channel 0
        second.weight.data[1:, 0] = 0  # and only channel 0 gets what filter 0 makes
    assert shrunk(model, IMAGE)["first.1"] == (5, 7, 3, 3)


class InvertedResidual(nn.Module):
    """MobileNet v2's block, with attention if asked for, between two convolutions."""

    def __init__(self, attention: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand, self.depthwise = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.fc1, self.fc2 = (nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)) if attention else (None, None)
        self.project, self.head = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        y = functional.relu6(self.depthwise(functional.relu6(self.expand(x))))
        if self.fc1 is not None:
            gate = self.fc2(functional.silu(self.fc1(functional.adaptive_avg_pool2d(y, 1))))
            y = y * functional.hardsigmoid(gate)
        return self.head(x + self.project(y))


def test_depthwise_convolutions_shrink_along() -> None:
    model = InvertedResidual()
    empty(model.project, channels=[0, 3])  # nobody reads them
    empty(model.expand, filters=[1], bias=0)  # zero, but then the depthwise bias
    model.depthwise.bias.data[[1, 2]] = torch.tensor([-1.0, 0.5])
    empty(model.depthwise, filters=[2])  # constant, into the bias of project
    assert shrunk(model, IMAGE) == {
        "expand": (8, 8, 1, 1),
        "depthwise": (8, 1, 3, 3),
        "project": (8, 8, 1, 1),
    }


def test_a_padded_depthwise_convolution_breaks_constants() -> None:
    model = InvertedResidual()
    empty(model.expand, filters=[1], bias=0.5)
    assert shrunk(model, IMAGE) == {}


def test_attention_shrinks_along() -> None:
    model = InvertedResidual(attention=True)
    empty(model.project, channels=[0])
    empty(model.fc1, channels=[0, 1])  # project still reads channel 1
    empty(model.depthwise, filters=[2], bias=0)  # zero whatever the gate
    assert shrunk(model, IMAGE) == {
        "expand": (10, 8, 1, 1),
        "depthwise": (10, 1, 3, 3),
        "fc1": (4, 10, 1, 1),
        "fc2": (10, 4, 1, 1),
        "project": (8, 10, 1, 1),
    }


def test_constants_per_channel_and_per_pixel_go_along() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.scale, self.map = nn.Parameter(torch.rand(8, 1, 1)), nn.Parameter(torch.rand(1, 8, 10, 10))
            self.flat = nn.Parameter(torch.rand(10, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(2 * self.map + self.scale * (1.0 - self.conv1(x)) - self.flat)

    model = Net()
    empty(model.conv2, channels=[6])
    assert shrunk(model, IMAGE) == {"conv1": (7, 3, 1, 1), "conv2": (4, 7, 1, 1)}


def test_the_same_layer_twice_shrinks_by_place() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(functional.relu(self.conv(functional.relu(self.conv(self.stem(x))))))

    model, x = Net(), IMAGE
    empty(model.head, channels=[0, 1])
    imported = imported_from(model, x)
    module = RemoveDeadChannels()(imported.module)
    convolutions = [b for b in main_bindings(module) if is_op(b.value, "relax.nn.conv2d")]
    assert [shape_of(b.value.args[1])[:2] for b in convolutions] == [(8, 3), (8, 8), (6, 8), (4, 6)]
    assert_equal(run_plainly(module, x), model, x)


class Untouched(nn.Module):
    """A convolution with empty filters whose channels stay, because of what follows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.wide = nn.Conv2d(8 if kind != "concat" else 16, 4, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(2, 8)
        empty(self.conv, filters=[0, 1], bias=0)
        empty(self.other, channels=[2])

    def forward(self, x: Tensor) -> Any:
        y = functional.relu(self.conv(x))
        match self.kind:
            case "output":
                return y
            case "output and consumer":
                return self.other(y), y
            case "concat":
                return self.wide(torch.cat([y, y], 1))
            case "split":
                a, b = y.split(4, 1)
                return self.other(torch.cat([b, a], 1))
            case "grouped":
                return self.other(self.grouped(y))
            case "softmax":
                return self.other(functional.softmax(y, 1))
            case "channel mean":
                return self.other(y) + y.mean(1, keepdim=True)
            case "norm":
                return self.other(self.norm(y))
            case "linear on columns":
                return functional.linear(y, torch.ones(3, 10))
            case "sum with the input":
                return self.other(y + x.mean(1, keepdim=True))
        raise ValueError(self.kind)


UNTOUCHED = [
    "output",
    "output and consumer",
    "concat",
    "split",
    "grouped",
    "softmax",
    "channel mean",
    "norm",
    "linear on columns",
    "sum with the input",
]


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_what_is_not_followed_stays(kind: str) -> None:
    assert shrunk(Untouched(kind), IMAGE) == {}
