"""Models at the edges of what PyTorch and ONNX can say: each computes what its own framework computes.

Each case failed once, or is what TVM's importers are known to get wrong without a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import pconvgen
from pconvgen.errors import PconvgenWarning
from pconvgen.verify import TOLERANCE, relative_errors, verify

pytestmark = pytest.mark.host

SHAPE = (1, 8, 9, 11)


class Function(nn.Module):
    """A function of the inputs, which may call the modules that it is given."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*self.parts, *inputs)


def assert_computes(model: nn.Module, *shapes: tuple[int, ...]) -> None:
    """The compiled module gives PyTorch's answers."""
    torch.manual_seed(0)
    example = tuple(torch.randn(shape) for shape in shapes or (SHAPE,))
    assert verify(pconvgen.compile(model.eval(), example=example), seeds=(0,)).passed


# Functions of one tensor. Those of one purpose are added up, because every model takes a third of a second to compile.
FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "scalars": lambda x: (1 - x, 1.5 - x, 2 * x, x / 2, 1 / (x.abs() + 1), x**2),
    "alpha": lambda x: (torch.add(x, x, alpha=0.5), torch.sub(x, 2, alpha=3), torch.rsub(x, x * x, alpha=2)),
    "mixed dtypes": lambda x: (x + (x > 0), x + torch.arange(11), x * torch.arange(8)[:, None, None]),
    "bounds": lambda x: (torch.clamp_max(x, 0.2), torch.clamp_min(x, 0.2), x.clamp(0, 6), x.clamp(max=0.1)),
    "exponential": lambda x: (functional.elu(x, 0.3), functional.celu(x, 0.3), functional.selu(x)),
    "activations": lambda x: (functional.mish(x), functional.logsigmoid(x), functional.glu(x, 1), functional.gelu(x)),
    "shrunk": lambda x: (functional.softshrink(x), functional.hardshrink(x), functional.threshold(x, 0.1, 0.2)),
    "norms": lambda x: (
        functional.instance_norm(x, eps=0.5),
        functional.group_norm(x, 4, eps=0.5),
        functional.layer_norm(x, [11], eps=0.4),
        functional.normalize(x, p=1),
    ),
    "statistics": lambda x: (x.std((2, 3)), x.var((2, 3)), x.std(1, correction=0), x.logsumexp(1), x.amax((1, 3))),
    "one number": lambda x: (
        x.mean(),
        x.std(),
        x.sum(),
        x.amax(),
        x.norm(),
        x[0, 1, 2, 3],
        x.mean() - x.amin() * x.sum(),
    ),
    "one number for each image": lambda x: (x.mean((1, 2, 3)), x.std((1, 2, 3)), x.flatten(1).argmax(1)),
    "one number and an image": lambda x: (x * x.mean(), x - functional.mse_loss(x, x / 2)),
    "maxima": lambda x: (functional.adaptive_max_pool2d(x, 1), functional.adaptive_max_pool2d(x, (3, 11))),
    "negative indices": lambda x: (x[:, -1], x[..., -2], x[:, [-1, 0, -3]], x[:, -3:, :-2], x[:, [0, -1], [1, -2]]),
    "indices apart": lambda x: (x[:, [0, 1], :, [2, -1]], x[:, torch.tensor([[0], [-1]]), torch.tensor([[1, 2]])]),
    "assignment": lambda x: x.index_put(tuple(torch.tensor([index]) for index in (0, -1, 2, -3)), torch.tensor(7.0)),
    "distances": lambda x: [torch.cdist(x, x + 0.5, p) for p in (0.0, 0.5, 1.0, 2.0, 3.0, torch.inf)],
    "random slopes": lambda x: (functional.rrelu(x), functional.rrelu(x, 0.1, 0.5)),
    "moved": lambda x: (
        functional.pixel_shuffle(x, 2),
        x.roll(3),
        x.rot90(1, (2, 3)),
        functional.pad(x, (-1, 2, 1, -2)),
    ),
    "nothing": lambda x: (x[:, :0], x[:, 5:2], torch.cat([x[:, :0].relu(), x], 1), x[:, :0].sum() + x, x[:0].sum(0)),
    "products of nothing": lambda x: (
        x[..., :0] @ x[..., :0].transpose(2, 3),
        functional.conv2d(x[:0], x[:, :, :3, :3]),
    ),
    "slices": lambda x: (x[:, -100:3, ::2], x[:, 2:-3], x[..., 3:100:4], x.narrow(2, -4, 3)),
    "slices that are replaced": lambda x: [
        torch.slice_scatter(x, x[:, :, :count], 2, begin, end, step)
        for begin, end, step, count in ((-4, 0, 1, 0), (1, 3, 1, 2), (-3, None, 1, 3), (0, 9, 2, 5), (7, 100, 1, 2))
    ],
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x, scale=0.7),
    "no operator": lambda x: x,
    "input and more": lambda x: {"same": x, "more": [x * 2, x]},
    "constant": torch.ones_like,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    assert_computes(Function(FUNCTIONS[name]), (2, *SHAPE[1:]) if name == "alpha" else SHAPE)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resizing_by_factors(mode: str) -> None:
    def resized(x: torch.Tensor) -> list[torch.Tensor]:
        factors: list[Any] = [1.5, 0.4, (1.7, 2.3), 2]
        return [functional.interpolate(x, scale_factor=factor, mode=mode) for factor in factors]

    assert_computes(Function(resized), (1, 2, 17, 23))


def test_resizing_to_one_row() -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, size=(1, 7), mode="bilinear", align_corners=True)

    assert_computes(Function(resized))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "image without batch": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(8, 4, 2, 2)),
        SHAPE[1:],
    ),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(8, 8, 3))), SHAPE),
    "transposed": (
        lambda: nn.ConvTranspose2d(8, 6, (3, 2), (3, 2), (1, 0), (2, 1), groups=2, dilation=(2, 1)),
        SHAPE,
    ),
    "same, even kernel": (lambda: nn.Conv2d(8, 6, 4, padding="same"), SHAPE),
    "reflected": (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), SHAPE),
    "circular": (lambda: nn.Conv2d(8, 6, 3, padding=2, padding_mode="circular"), SHAPE),
    "large kernel": (lambda: nn.Conv2d(3, 8, 11, stride=4, padding=2), (1, 3, 31, 33)),
    "stride above kernel": (lambda: nn.Conv2d(8, 8, 2, stride=5), (1, 8, 21, 23)),
    "dilated": (lambda: nn.Conv2d(8, 8, 3, dilation=3, padding=3), (1, 8, 13, 10)),
    "one pixel": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)), (3, 3, 1, 1)),
    "one channel": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 1)), (1, 1, 5, 7)),
    "one-dimensional": (
        lambda: nn.Sequential(nn.Conv1d(4, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)),
        (2, 4, 31),
    ),
    "groups of odd sizes": (
        lambda: nn.Sequential(nn.Conv2d(9, 15, 3, groups=3), nn.Conv2d(15, 15, 3, groups=5)),
        (1, 9, 9, 11),
    ),
    "matrices of rank 3": (lambda: nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 7)), (2, 5, 16)),
    "channels last": (lambda: nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last), SHAPE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    """Pruned, so that the layers get kernels for their zeros."""
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model = build()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                weight = layer.weight
                weight.copy_(weight * (torch.rand_like(weight) < 0.4))
    assert_computes(model, shape)


def test_shared_layer() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1)
    assert_computes(Function(lambda conv, x: conv(conv(x).relu()), layer))


EMPTYING: dict[str, Callable[[torch.Tensor], Any]] = {
    "all": lambda weight: weight.zero_(),
    "all but one weight": lambda weight: weight.view(-1)[1:].zero_(),
    "all but one filter": lambda weight: weight[1:].zero_(),
    "all but the last filter": lambda weight: weight[:-1].zero_(),
    "all but one channel": lambda weight: weight[:, 1:].zero_(),
    "every second filter": lambda weight: weight[::2].zero_(),
}


@pytest.mark.parametrize("name", EMPTYING)
def test_emptied_layers(name: str) -> None:
    torch.manual_seed(0)
    convolution = [nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)]
    model = nn.Sequential(*convolution, nn.ReLU(), nn.Conv2d(16, 9, 1), nn.Flatten(), nn.Linear(315, 7))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                EMPTYING[name](parameter)
    assert_computes(model)


def test_masks_of_pruning() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(560, 7))
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    prune.global_unstructured([(model[2], "weight"), (model[4], "weight")], prune.L1Unstructured, amount=0.8)
    prune.l1_unstructured(model[2], "weight", 0.5)  # on top of another one
    assert_computes(model)


class Everything(nn.Module):
    """Batch norm, hard swish, squeeze and excitation, groups, a transposed convolution, resizing and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.up = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.ConvTranspose2d(8, 8, 2, 2))
        self.classes = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).clamp(0, 6)
        x = self.up(x * torch.sigmoid(self.gate(x)))
        x = functional.interpolate(x, scale_factor=1.5, mode="nearest")
        x = functional.relu6(functional.interpolate(x, size=(11, 13), mode="bilinear"))
        x = functional.interpolate(x, scale_factor=(0.7, 1.3), mode="bilinear")
        return self.classes(x.view(x.shape[0], x.shape[1], -1).mean(2))


@pytest.mark.parametrize("opset", [11, 12, 13, 14, 16, 18, 20])
def test_onnx_opsets(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Everything().eval()
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["net/in.put:0"], "output_names": ["net/out.1"]}
        example = (torch.zeros(3, 3, 9, 11),)
        torch.onnx.export(model, example, str(path), dynamo=False, opset_version=opset, **names)
    compiled = pconvgen.compile(path)
    inputs = compiled.manifest.random_inputs(0)
    with torch.no_grad():
        expected = {"net/out.1": model(torch.from_numpy(inputs["net/in.put:0"])).numpy()}
    for reference in (expected, compiled.imported.reference(inputs)):
        assert relative_errors(compiled.run(inputs), reference)["net/out.1"] <= TOLERANCE


class Recurrent(nn.Module):
    """Every output and every state, of one element and of several."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.more = nn.LSTM(4, 5, batch_first=True), nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3)
        self.gates, self.plain = nn.GRU(4, 5, 2, bidirectional=True), nn.RNN(4, 5, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> list[Any]:
        return [self.one(x), self.one(x[:, :1]), self.more(x), self.gates(x), self.plain(x)]


def test_recurrent_layers_give_their_states() -> None:
    """Of a sequence of one element an LSTM's cell state came out as its output, which has the same shape."""
    torch.manual_seed(0)
    assert verify(pconvgen.compile(Recurrent().eval(), example=(torch.randn(2, 2, 4),)), seeds=(0,)).passed


def test_outputs_that_are_no_tensors_are_left_out() -> None:
    for function, names in (
        (lambda x: (x + 1, None), ["output_0"]),
        (lambda x: {"a": None, "scores": x * 2, "count": 3}, ["scores"]),
        (lambda x: (2, [x, (None, x - 1)]), ["output_1_0", "output_1_1_1"]),
    ):
        with pytest.warns(PconvgenWarning, match=r"is no tensor but (None|2|3), left out of the outputs"):
            compiled = pconvgen.compile(Function(function), example=(torch.zeros(SHAPE),))
        assert [name for name, _, _ in compiled.manifest.outputs] == names
        assert verify(compiled, seeds=(0,)).passed


def test_integer_output() -> None:
    """Such as the classes of a segmentation."""
    torch.manual_seed(0)
    model = Function(lambda conv, x: conv(x).argmax(1), nn.Conv2d(8, 5, 3)).eval()
    compiled = pconvgen.compile(model, example=(torch.zeros(SHAPE),))
    inputs = compiled.manifest.random_inputs(0)
    found = compiled.run(inputs)["output"]
    assert found.dtype == np.int64
    assert (found == compiled.imported.reference(inputs)["output"]).mean() > 0.99


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    path = tmp_path / ("x" * 252 + ".so")
    pconvgen.compile(model, example=(torch.zeros(1, 4),)).export(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
