"""Infinite numbers are numbers: masks, padding and bounds compute what PyTorch and ONNX Runtime compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import pconvgen
from pconvgen.verify import verify

pytestmark = pytest.mark.host

F = nn.functional
INF = float("inf")


class Masked(nn.Module):
    """Functions of a tensor, of an upper triangle of -inf, and of inf."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.register_buffer("mask", torch.triu(torch.full((11, 11), -INF), 1))
        self.register_buffer("large", torch.tensor(INF))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x, self.mask, self.large, self.conv(x)) for function in FUNCTIONS.values())


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "padding before a pool": lambda x, mask, large, y: F.max_pool2d(F.pad(x, (1, 0, 1, 2), value=-INF), 2),
    "padding of a layer": lambda x, mask, large, y: F.max_pool2d(F.pad(y.relu(), (1, 1, 1, 1), value=-INF), 3, 2),
    "padding": lambda x, mask, large, y: F.pad(y, (1, 0, 1, 2), value=INF),
    "full": lambda x, mask, large, y: torch.maximum(y, torch.full((8, 9, 11), -INF)),
    "full like": lambda x, mask, large, y: torch.minimum(x, torch.full_like(x, INF)) + torch.full((9, 11), INF),
    "full of NaN": lambda x, mask, large, y: torch.cat([y, torch.full((1, 1, 9, 11), float("nan"))], 1),
    "causal softmax": lambda x, mask, large, y: torch.softmax(x.mT @ y + mask, -1),
    "softmax of nothing": lambda x, mask, large, y: torch.softmax(x.masked_fill(x[..., :1] > 0, -INF), -1),
    "softmax of no column": lambda x, mask, large, y: torch.softmax(x.masked_fill(x[:, :1] > 0, -INF), 1),
    "logarithm of softmax": lambda x, mask, large, y: torch.log_softmax(x.mT @ y + mask, -1),
    "largest": lambda x, mask, large, y: y.masked_fill(y > 0, -INF).amax((2, 3)),
    "where": lambda x, mask, large, y: torch.where(y > 0, large, torch.where(x > 0, x, -INF)),
    "bounds": lambda x, mask, large, y: torch.cat([y.clamp(0, INF), y.clamp(-INF, INF), y.clamp(-INF, 0.1)], 1),
    "arithmetic": lambda x, mask, large, y: torch.cat([y * large, y / large, torch.minimum(y, large), y - large], 1),
    "functions": lambda x, mask, large, y: torch.cat([(y + mask[:9]).exp(), (y + mask[:9]).sigmoid()], 1),
    "hyperbolic functions": lambda x, mask, large, y: torch.cat([(40 * y + mask[:9]).cosh(), (x + mask[:9]).sinh()], 1),
    "causal attention": lambda x, mask, large, y: F.scaled_dot_product_attention(x, y, x, is_causal=True),
    "masked attention": lambda x, mask, large, y: F.scaled_dot_product_attention(x.mT, y.mT, x.mT, attn_mask=mask),
    "chosen attention": lambda x, mask, large, y: F.scaled_dot_product_attention(x.mT, y.mT, x.mT, mask == 0),
    "attention to nothing": lambda x, mask, large, y: F.scaled_dot_product_attention(
        x.mT, y.mT, x.mT, torch.cat([torch.full((1, 11), -INF), mask[1:]])
    ),
}


def test_torch() -> None:
    torch.manual_seed(0)
    model, x = Masked().eval(), torch.randn(1, 8, 9, 11)
    compiled = pconvgen.compile(model, example=(x,))
    results = compiled.run(x.numpy())
    assert verify(compiled, seeds=(0,)).passed
    with torch.no_grad():
        for name, found, expected in zip(FUNCTIONS, results.values(), model(x), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


ONNX: tuple[tuple[Any, ...], ...] = (
    ("Pad", ["x", "widths", "-inf"], "padded"),
    ("MaxPool", ["padded"], "pooled", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Clip", ["x", "zero", "inf"], "clipped"),
    ("Clip", ["x", "-inf", "inf"], "unclipped"),
    ("Clip", ["x", "-inf", "zero"], "negative"),
    ("ConstantOfShape", ["shape"], "full", {"value": numpy_helper.from_array(np.array([-np.inf], np.float32))}),
    ("Max", ["x", "full"], "larger"),
    ("Greater", ["x", "zero"], "positive"),
    ("Where", ["positive", "x", "-inf"], "chosen"),
    ("Softmax", ["chosen"], "shares", {"axis": -1}),
    ("Add", ["x", "mask"], "masked"),
    ("Softmax", ["masked"], "columns", {"axis": 1}),
)


def test_onnx(tmp_path: Path) -> None:
    constants: dict[str, NDArray[Any]] = {
        "widths": np.array([0, 0, 1, 1, 0, 0, 2, 0]),
        "shape": np.array([1, 3, 5, 7]),
        "zero": np.array(0, np.float32),
        "inf": np.array(np.inf, np.float32),
        "-inf": np.array(-np.inf, np.float32),
        "mask": np.triu(np.full((3, 5, 7), -np.inf, np.float32)),
    }
    nodes = [helper.make_node(op, inputs, [name], **dict(*attrs)) for op, inputs, name, *attrs in ONNX]
    names = [name for op, _, name, *_ in ONNX if op not in ("ConstantOfShape", "Greater")]
    graph = helper.make_graph(
        nodes,
        "infinities",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 7), dtype=np.float32)
    x[0, 0, 0] = -1  # a row of which nothing is chosen
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found = pconvgen.compile(tmp_path / "m.onnx").run(x)
    for name, expected in zip(names, session.run(names, {"x": x}), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
