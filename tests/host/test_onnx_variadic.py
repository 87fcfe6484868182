"""ONNX operators of any number of inputs: broadcast, of one type, and as cheap as operators of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import pconvgen
from pconvgen.frontend import load_model
from pconvgen.tvm_compat.relax import op_name
from pconvgen.tvm_compat.rewriting import main_bindings

pytestmark = pytest.mark.host

NUMBERS: dict[str, np.ndarray] = {
    "scalar": np.array(0.25, np.float32),
    "row": np.linspace(-1, 1, 5, dtype=np.float32),
    "channels": np.linspace(-2, 2, 4, dtype=np.float32).reshape(4, 1, 1),
    "other": np.random.default_rng(0).standard_normal((2, 4, 3, 5)).astype(np.float32),
}
OPERANDS = (("x",), ("x", "scalar"), ("row", "x", "channels"), ("x", "y", "other", "scalar"), ("scalar", "row"))


def test_each_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(op, list(operands), [f"{op}{index}"])
        for op in ("Max", "Min", "Sum", "Mean")
        for index, operands in enumerate(OPERANDS)
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 4, 3, 5)) for name in ("x", "y")]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes]
    constants = [numpy_helper.from_array(value, name) for name, value in NUMBERS.items()]
    graph = helper.make_graph(nodes, "variadic", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "variadic.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    compiled = pconvgen.compile(path)
    values = compiled.manifest.random_inputs(0)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = compiled.run(values)
    for name, expected in zip(found, session.run(list(found), values), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_two_inputs_are_one_operator(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "slope"], ["s"]),
        helper.make_node("Max", ["c", "s"], ["y"]),
    ]
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(0.1, np.float32), "slope")]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 9, 9))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 7, 7))
    graph = helper.make_graph(nodes, "leaky", [image], [result], constants)
    path = tmp_path / "leaky.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    imported = load_model(path)
    assert [op_name(binding.value) for binding in main_bindings(imported.module) or []] == [
        "relax.nn.conv2d",
        "relax.multiply",
        "relax.maximum",
    ]
