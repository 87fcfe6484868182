"""Who says what a model should compute, and that importers are held to the shapes that the model itself has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import Invoke
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from tvm import relax

import pconvgen
from pconvgen.errors import PconvgenError
from pconvgen.frontend import load_model
from pconvgen.frontend.onnx import converters as onnx_converters
from pconvgen.frontend.onnx import judge
from pconvgen.frontend.torch import converters as torch_converters
from pconvgen.verify import verify

pytestmark = pytest.mark.host

SHAPE = (1, 3, 6, 8)


def write(path: Path, nodes: list[Any], shape: list[Any], opset: int = 13, **constants: Any) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "judged", [image], [result], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


@pytest.fixture
def old_norm(tmp_path: Path) -> Path:
    """A batch norm of opset 12, for which onnx's reference evaluator takes statistics of the batch."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"]),
    ]
    values = {"scale": [1, 2, 3, 4], "shift": [0, 1, 2, 3], "mean": [3, 2, 1, 0], "variance": [1, 2, 3, 4]}
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3))
    return write(tmp_path / "m.onnx", nodes, [1, 4, 4, 6], 12, w=weight, **values)


def test_onnxruntime_judges_onnx_files(old_norm: Path, tmp_path: Path, invoke: Invoke) -> None:
    result = verify(pconvgen.compile(old_norm))
    assert result.passed
    assert result.judge == f"onnxruntime {onnxruntime.__version__}"
    code, out, err = invoke("compile", old_norm, "-o", tmp_path / "m.so", "--verify")
    assert (code, err) == (0, "")
    assert f"verified against onnxruntime {onnxruntime.__version__}: relative error" in out


def test_without_onnxruntime_nothing_is_verified(old_norm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "find_spec", lambda name: None)
    compiled = pconvgen.compile(old_norm)
    with pytest.raises(PconvgenError, match=r"needs the package onnxruntime.*compile without --verify"):
        verify(compiled)


def test_what_onnxruntime_cannot_run_is_not_verified(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], list(SHAPE))
    compiled = pconvgen.compile(path)
    path.write_bytes(b"")
    with pytest.raises(PconvgenError, match="onnxruntime cannot run this model"):
        verify(compiled)


def test_results_with_other_shapes_than_in_the_onnx_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(inputs: Any, _attrs: Any, _emit: Any) -> Any:
        return relax.op.permute_dims(inputs[0], [0, 1, 3, 2])

    nodes = [helper.make_node("Relu", ["x"], ["r"], name="first/Relu"), helper.make_node("Sigmoid", ["r"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, list(SHAPE))
    monkeypatch.setitem(onnx_converters.CONVERTERS, "Relu", wrong)
    with pytest.raises(PconvgenError, match=r"layer first/Relu: this Relu was read wrongly.*found 1x3x8x6.*1x3x6x8"):
        load_model(path)


@pytest.mark.parametrize(("shape", "right"), [([1, 3, 6, 8], True), (["n", 3, None, 8], True), ([1, 3, 8, 6], False)])
def test_declared_shapes_count_where_onnx_infers_none(
    shape: list[Any], right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape)
    monkeypatch.setattr("pconvgen.frontend.onnx.file.trusted_shapes", lambda *_: {})
    if right:
        assert load_model(path).outputs[0].shape == SHAPE
        return
    with pytest.raises(PconvgenError, match=r"output y has another shape than the file declares.*1x3x6x8.*1x3x8x6"):
        load_model(path)


def test_results_with_other_shapes_than_in_pytorch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: Any, importer: Any) -> Any:
        return importer.block_builder.emit(relax.op.permute_dims(importer.env[node.args[0]], [0, 1, 3, 2]))

    monkeypatch.setitem(torch_converters.CONVERTERS, "relu.default", wrong)
    with pytest.raises(PconvgenError, match=r"layer 1: this relu.default was read wrongly.*1x4x6x4.*1x4x4x6"):
        load_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), {"input": SHAPE})


@pytest.mark.parametrize("function", [torch.log, lambda x: x / x.relu(), lambda x: x.where(x > 0, float("-inf"))])
def test_what_is_not_finite_in_pytorch_is_verified(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    result = verify(pconvgen.compile(Odd(), example=(torch.zeros(SHAPE),)), seeds=(0,))
    assert result.passed, result
    assert re.match(r"PyTorch \d", result.judge)
