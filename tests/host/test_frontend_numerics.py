"""Imported networks, built by TVM's stock pipeline, compute what the model computes in its own framework."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tvm
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional
from tvm import relax
from zoo import ZOO

from pconvgen.frontend import Imported, load_model
from pconvgen.passes.resizes import LowerResizes
from pconvgen.targets.presets import get_target

pytestmark = pytest.mark.host
TOLERANCE = 1e-4


def run(imported: Imported, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What the module computes when TVM builds it without our passes, but the one for the operator that is ours."""
    module = LowerResizes(get_target("host"))(imported.module)
    # Nobody waits for the result of one run: optimising takes longer.
    built = tvm.compile(relax.get_pipeline("zero")(module), tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(built, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(values[spec.name]) for spec in imported.inputs))
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return {spec.name: tensor.numpy() for spec, tensor in zip(imported.outputs, results, strict=True)}


def values_for(imported: Imported) -> dict[str, NDArray[Any]]:
    """Random inputs."""
    generator = np.random.default_rng(0)
    return {spec.name: generator.standard_normal(spec.shape, dtype=np.float32) for spec in imported.inputs}


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Equal shapes, and no difference above TOLERANCE of the largest element."""
    assert found.shape == expected.shape
    scale = float(np.abs(expected).max())
    assert scale > 0.01
    assert float(np.abs(found - expected).max()) <= TOLERANCE * scale


def check(imported: Imported, model: nn.Module | None = None) -> None:
    """Compare with the reference, and the reference with the PyTorch model it was exported from."""
    values = values_for(imported)
    found, expected = run(imported, values), imported.reference(values)
    assert list(found) == list(expected) == [spec.name for spec in imported.outputs]
    for spec in imported.outputs:
        assert found[spec.name].shape == spec.shape
        assert_close(found[spec.name], expected[spec.name])
    if model is not None:
        assert_close(expected[imported.outputs[0].name], eager(model, values))


def eager(model: nn.Module, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The one output of `model` in PyTorch."""
    with torch.no_grad():
        return model(*(torch.from_numpy(value) for value in values.values())).numpy()


def to_onnx(model: nn.Module, example: Any, path: Path, **options: Any) -> Imported:
    """`model` through an ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, example, str(path), **{"dynamo": False, **options})
    return load_model(path)


FEW = ("mobilenet_v3", "shufflenet", "unet")
"""Networks of many operators. Our own pipeline compiles all of them in each run, see test_networks.py."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FEW else pytest.mark.long) for name in ZOO])
def test_network(name: str) -> None:
    entry = ZOO[name]
    model = entry.build()
    check(load_model(model, {entry.input_name: entry.shape}), model)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", FEW)
def test_network_from_onnx(name: str, dynamo: bool, tmp_path: Path) -> None:
    entry = ZOO[name]
    model = entry.build()
    check(to_onnx(model, (entry.example(),), tmp_path / "m.onnx", dynamo=dynamo), model)


class Resized(nn.Module):
    """Nearest and bilinear resizing by factors that are not whole, up and down."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            functional.interpolate(x, size=(13, 5), mode="nearest"),
            functional.interpolate(x, scale_factor=0.5, mode="nearest"),
            functional.interpolate(x, size=(13, 5), mode="bilinear", align_corners=False),
            functional.interpolate(x, size=(13, 5), mode="bilinear", align_corners=True),
        )


class Gated(nn.Module):
    """Activations and small operators that the zoo lacks; ONNX has neither a channel shuffle nor odd pooling."""

    def __init__(self, shuffle: bool = True) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.conv = nn.Conv2d(6, 6, (3, 5), padding="same", dilation=(2, 1), padding_mode="zeros")
        self.up = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2)
        self.slope = nn.PReLU(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = functional.leaky_relu(functional.channel_shuffle(x, 3) if self.shuffle else x, 0.1)
        x = self.slope(self.up(functional.hardtanh(x, -2, 2)))
        x = functional.pad(x.clamp(min=-0.5), (1, 2, 0, 1), value=0.25)
        x = functional.adaptive_avg_pool2d(functional.avg_pool2d(x, 3, 2, 1), (2, 3) if self.shuffle else 1)
        return functional.softmax(torch.flatten(x, 1), 1) + x.mean((2, 3)).sum()


class InPlace(nn.Module):
    """In-place operators whose result is read through the tensor that they changed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        functional.relu(y, inplace=True)
        y[:, :2].mul_(2.0)
        return y + 1


@pytest.mark.parametrize(
    ("make", "shape"),
    [(Resized, (1, 2, 8, 8)), (Gated, (1, 6, 9, 7)), (InPlace, (1, 3, 6, 6))],
    ids=["resized", "gated", "in_place"],
)
def test_operators(make: type[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    check(load_model(model, example=(torch.zeros(shape),)))


@pytest.mark.parametrize("opset", [11, 18])
def test_operators_from_onnx(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gated(shuffle=False).eval()
    model.conv.padding = (2, 2)
    imported = to_onnx(model, (torch.zeros(1, 6, 9, 7),), tmp_path / "m.onnx", opset_version=opset)
    values = values_for(imported)
    assert_close(run(imported, values)[imported.outputs[0].name], eager(model, values))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_onnx_auto_pad_and_gemm(mode: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {"conv": (4, 3, 3, 2), "fc": (2, 64), "bias": (2,)}
    rows = {"SAME_UPPER": 4, "SAME_LOWER": 4, "VALID": 3}[mode]
    weights["fc"] = (2, 4 * rows * 4)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv"], ["y"], auto_pad=mode, strides=[2, 2]),
            helper.make_node("Flatten", ["y"], ["flat"]),
            helper.make_node("Gemm", ["flat", "fc", "bias"], ["z"], transB=1, alpha=0.5, beta=2.0),
            helper.make_node("HardSigmoid", ["z"], ["out"], alpha=0.3),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(generator.standard_normal(shape, dtype=np.float32), name)
            for name, shape in weights.items()
        ],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    check(load_model(path))
