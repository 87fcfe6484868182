"""ONNX models in other types than float32 compute what onnxruntime computes, and say what they are computed in."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nodes import Node, differing
from onnx import TensorProto
from onnxruntime import quantization
from onnxruntime.transformers import float16
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenWarning
from pconvgen.header import c_header

RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "float32") -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def scalar(value: Any, dtype: str) -> Any:
    return np.array(value, dtype)


@pytest.mark.filterwarnings("ignore::pconvgen.errors.PconvgenWarning")
def test_casts_truncate_round_and_compare_with_zero(tmp_path: Path) -> None:
    floats = np.array([0, -0.0, 0.4, -0.4, 0.5, 1.5, -1.5, 2.5, 99.99, -99.99, 1e-30], "float32")
    inputs = {
        "f": floats,
        "h": floats.astype("float16"),
        "d": np.append(floats.astype("float64"), 1 / 3),
        "positive": np.array([0, 0.9, 127.5, 255.9], "float32"),
        "i": np.array([0, 1, -1, 127, -128, 70000], "int32"),
        "l": np.array([0, -5, 2**24], "int64"),
        "u": np.arange(256).astype("uint8"),
        "b": np.array([True, False]),
    }
    nodes = {
        f"{name} to {kind}": Node("Cast", (name,), {"to": getattr(TensorProto, kind)})
        for name in inputs
        for kind in ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL")
        # Numbers that the type does not hold become whatever the compiler of the runtime made of them.
        if kind != "UINT8" or name in ("positive", "u", "b", "i")
        if kind != "INT8" or name != "positive"
        if (name, kind) not in (("i", "FLOAT16"), ("l", "FLOAT16"))
    }
    assert differing(nodes, inputs, tmp_path / "casts.onnx") == {}


TYPES = ("uint8", "int8", "uint16", "int16")


@pytest.mark.filterwarnings("ignore::pconvgen.errors.PconvgenWarning")
def test_linear_quantisation_rounds_halves_to_even_and_saturates(tmp_path: Path) -> None:
    halves = np.arange(-600, 600).astype("float32").reshape(1, 4, 300) / 4
    inputs = {"x": halves, **{name: np.arange(-100, 100).reshape(1, 4, 50).astype(name) for name in TYPES}}
    scales = np.array([0.5, 0.25, 1, 2], "float32")
    nodes = {}
    for name in TYPES:
        zeros = np.array([0, 3, 5, 100], name)
        nodes |= {
            f"{name} q": Node("QuantizeLinear", ("x", scalar(0.5, "float32"), scalar(7, name))),
            f"{name} q of axes": Node("QuantizeLinear", ("x", scales, zeros), {"axis": 1}),
            f"{name} q of the last axis but one": Node("QuantizeLinear", ("x", scales, zeros), {"axis": -2}),
            f"{name} dq": Node("DequantizeLinear", (name, scalar(0.3, "float32"), scalar(7, name))),
            f"{name} dq of axes": Node("DequantizeLinear", (name, scales, zeros), {"axis": 1}),
            f"{name} dq of a constant": Node("DequantizeLinear", (inputs[name], scales, zeros), {"axis": 1}),
            f"{name} dq in blocks": Node(
                "DequantizeLinear",
                (inputs[name], np.tile(scales.reshape(1, 4, 1), (1, 1, 5)), np.tile(zeros.reshape(1, 4, 1), (1, 1, 5))),
                {"axis": 2, "block_size": 10},
            ),
        }
    nodes["no zero"] = Node("QuantizeLinear", ("x", scalar(0.3, "float32")))
    assert differing(nodes, inputs, tmp_path / "linear.onnx", 21) == {}


@pytest.mark.filterwarnings("ignore::pconvgen.errors.PconvgenWarning")
@pytest.mark.parametrize("opset", [13, 19])
def test_integer_convolutions_and_products(opset: int, tmp_path: Path) -> None:
    # Seven bits: see REDUCED. No result lies halfway between two integers, which may be rounded either way.
    kernels = RNG.integers(-64, 64, (4, 3, 3, 3), "int8")
    matrix = RNG.integers(-64, 64, (6, 5), "int8")
    inputs = {
        "x": normal(2, 3, 8, 8),
        "zeros": np.zeros((2, 3), "float32"),
        "q": RNG.integers(0, 256, (1, 3, 8, 8), "uint8"),
        "m": RNG.integers(0, 256, (7, 6), "uint8"),
    }
    scale, zero = scalar(0.05, "float32"), scalar(120, "uint8")
    weights = (kernels, np.array([0.01, 0.02, 0.03, 0.04], "float32"), np.zeros(4, "int8"))
    bias = RNG.integers(-1000, 1000, 4, "int32")
    nodes = {
        "conv": Node("ConvInteger", ("q", kernels.view("uint8"), zero, scalar(100, "uint8")), {"pads": [1, 1, 1, 1]}),
        "conv without zeros": Node("ConvInteger", ("q", kernels.view("uint8")), {"strides": [2, 2]}),
        "product": Node("MatMulInteger", ("m", matrix, zero, scalar(3, "int8"))),
        "product of columns": Node("MatMulInteger", ("m", matrix, zero, np.arange(5).astype("int8"))),
        "dynamic": Node("DynamicQuantizeLinear", ("x",), outputs=3),
        "dynamic of zeros": Node("DynamicQuantizeLinear", ("zeros",), outputs=3),
        "linear conv": Node(
            "QLinearConv",
            ("q", scale, zero, *weights, scalar(0.5115, "float32"), scalar(99, "uint8"), bias),
            {"pads": [1, 0, 1, 0]},
        ),
        "linear product": Node(
            "QLinearMatMul",
            ("m", scale, zero, matrix, scalar(0.02, "float32"), scalar(0, "int8"), scalar(1.331, "float32"), zero),
        ),
    }
    found = differing(nodes, inputs, tmp_path / "integers.onnx", opset)
    assert found == {}


SHAPE = (1, 3, 12, 12)


def network() -> nn.Module:
    """Kernels of patterns, a depthwise layer and a classifier."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight[torch.rand(layer.weight.shape) < 0.7] = 0
    return net.eval()


def exported(net: nn.Module, path: Path, image: torch.Tensor) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (image,), path, dynamo=False, opset_version=13, input_names=["x"], output_names=["y"])
    return path


class Images(quantization.CalibrationDataReader):
    """Four random images."""

    def __init__(self) -> None:
        self._left = [{"x": np.random.default_rng(seed).standard_normal(SHAPE).astype("float32")} for seed in range(4)]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


def expected(path: Path, x: Any) -> Any:
    """What onnxruntime computes; unoptimised, as optimisations replace quantised operators by integer ones."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


REDUCED = {"reduce_range": True}
"""Weights of 7 bits: onnxruntime adds pairs of products in 16 bits on processors without VNNI, where 8 saturate."""

QUANTISED = {
    "nodes beside layers": {"quant_format": quantization.QuantFormat.QDQ},
    "by channel, unsigned": {
        "quant_format": quantization.QuantFormat.QDQ,
        "per_channel": True,
        "weight_type": quantization.QuantType.QUInt8,
    },
    "operators": {"quant_format": quantization.QuantFormat.QOperator},
    "dynamic": {},
}


@pytest.mark.parametrize("case", QUANTISED)
def test_quantised_networks_keep_their_zeros_and_their_numbers(case: str, tmp_path: Path) -> None:
    plain = exported(network(), tmp_path / "plain.onnx", torch.zeros(SHAPE))
    path = tmp_path / "quantised.onnx"
    if case == "dynamic":
        quantization.quantize_dynamic(plain, path, **REDUCED)
    else:
        types = {"activation_type": quantization.QuantType.QUInt8}
        quantization.quantize_static(plain, path, Images(), **types, **REDUCED, **QUANTISED[case])
    with pytest.warns(PconvgenWarning, match="layers 0, 2, 5, 8 .*in integers, computed in float32"):
        compiled = pconvgen.compile(path)
    assert [decision.name for decision in compiled.decisions] == ["0", "2", "5", "8"]
    assert all(decision.reason.endswith("computed in float32") for decision in compiled.decisions)
    assert [decision.structure for decision in compiled.decisions[:2]] == ["unstructured", "unstructured"]
    assert compiled.decisions[0].density < 0.35
    x = normal(*SHAPE)
    reference = expected(path, x)
    assert relative(compiled.run(x)["y"], reference) < 1e-5


def relative(found: Any, reference: Any) -> float:
    assert (found.dtype, found.shape) == (reference.dtype, reference.shape)
    return float(np.abs(found.astype("float64") - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float16, 5e-3)])
def test_networks_in_other_floats_take_and_give_them(dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    net = network().to(dtype)
    path = exported(net, tmp_path / "net.onnx", torch.zeros(SHAPE, dtype=dtype))
    with pytest.warns(PconvgenWarning, match=f"{name} in the model, computed in float32"):
        compiled = pconvgen.compile(path)
    assert compiled.manifest.inputs == (("x", SHAPE, name),)
    assert compiled.manifest.outputs == (("y", (1, 10), name),)
    x = normal(*SHAPE)
    # By PyTorch in float64, with the same weights: onnxruntime has no such convolutions on this processor.
    with torch.no_grad():
        reference = net.double()(torch.from_numpy(x.astype(name)).double()).numpy()
    assert relative(compiled.run(x)["y"], reference.astype(name)) < tolerance
    assert compiled.decisions[0].structure == "unstructured"


def test_float16_inside_with_float32_ends(tmp_path: Path) -> None:
    plain = exported(network(), tmp_path / "plain.onnx", torch.zeros(SHAPE))
    path = tmp_path / "half.onnx"
    onnx.save(float16.convert_float_to_float16(onnx.load(plain), keep_io_types=True), path)
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    with pytest.warns(PconvgenWarning, match="float16 in the model, computed in float32"):
        compiled = pconvgen.compile(path)
    x = normal(*SHAPE)
    assert relative(compiled.run(x)["y"], expected(path, x)) < 5e-3


def test_images_of_bytes_stay_bytes_at_the_boundary(tmp_path: Path) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5]).reshape(3, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.net((image.float() - self.mean) / 58.0)

    path = exported(Normalised(), tmp_path / "bytes.onnx", torch.zeros(SHAPE, dtype=torch.uint8))
    compiled = pconvgen.compile(path)
    assert compiled.manifest.inputs == (("x", SHAPE, "uint8"),)
    x = RNG.integers(0, 256, SHAPE, "uint8")
    reference = expected(path, x)
    assert relative(compiled.run(x)["y"], reference) < 1e-5
    assert relative(compiled.run(x.tolist(), threads=1)["y"], reference) < 1e-5
    assert "uint8 1x3x12x12" in c_header(compiled.manifest, Path("bytes.so"))
    assert compiled.bench().median_ms
