"""NaN and infinities in, NaN and infinities out, where PyTorch has them and nowhere else."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import pconvgen
from tests.not_a_number import OPERATORS, Functions, Layers, difference, images, table

pytestmark = pytest.mark.host


def test_every_operator_hands_nan_on() -> None:
    x = table()
    found = pconvgen.compile(Functions(list(OPERATORS.values())), example=(x,)).run(x.numpy())
    wrong = {
        name: difference(ours, function(x))
        for (name, function), ours in zip(OPERATORS.items(), found.values(), strict=True)
    }
    assert not {name: what for name, what in wrong.items() if what}


def test_layers_hand_nan_on_to_the_windows_that_hold_it() -> None:
    torch.manual_seed(0)
    model, x = Layers().eval(), images()
    found = pconvgen.compile(model, example=(x,), exact_nan=True).run(x.numpy())
    wrong = {name: difference(found[name], theirs) for name, theirs in model(x).items()}
    assert not {name: what for name, what in wrong.items() if what}


ONNX = {
    "Relu": {},
    "Elu": {},
    "Celu": {},
    "Selu": {},
    "HardSwish": {},
    "HardSigmoid": {"alpha": 0.3},
    "LeakyRelu": {"alpha": 0.1},
    "Sign": {},
    "Softmax": {},
    "ThresholdedRelu": {"alpha": 0.5},
}


def test_operators_of_onnx_are_as_onnxruntime_has_them(tmp_path: Path) -> None:
    """Its reductions are not: they lose NaN, which ONNX leaves open; those here are PyTorch's."""
    x, path = table().numpy(), tmp_path / "model.onnx"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in ("x", *ONNX)]
    nodes = [helper.make_node(name, ["x"], [name], **attributes) for name, attributes in ONNX.items()]
    graph = helper.make_graph(nodes, "operators", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), str(path))
    expected = onnxruntime.InferenceSession(str(path)).run(list(ONNX), {"x": x})
    found = pconvgen.compile(path).run(x)
    wrong = {
        name: difference(found[name], torch.from_numpy(theirs)) for name, theirs in zip(ONNX, expected, strict=True)
    }
    assert not {name: what for name, what in wrong.items() if what}
