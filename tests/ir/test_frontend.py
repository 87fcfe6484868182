"""Every network of the zoo imports from every format into the same normal form."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import tvm
from torch import nn
from tvm import relax
from zoo import ZOO, ZooEntry

from pconvgen.errors import UsageError
from pconvgen.frontend import Imported, TensorSpec, load_model
from pconvgen.tvm_compat.relax import constant_value, is_op
from pconvgen.tvm_compat.rewriting import layer_names, main_bindings

WEIGHTED = ("relax.nn.conv2d", "relax.nn.conv2d_transpose", "relax.matmul")


def operators(imported: Imported) -> Counter[str]:
    """How often each operator is called."""
    bindings = main_bindings(imported.module)
    assert bindings is not None
    return Counter(b.value.op.name for b in bindings if isinstance(b.value, tvm.ir.Call))


def weights(imported: Imported) -> dict[str, Any]:
    """Layer name -> weight."""
    bindings = main_bindings(imported.module) or []
    return {
        imported.layer_names[binding.var.name]: constant_value(binding.value.args[1])
        for binding in bindings
        if is_op(binding.value, *WEIGHTED)
    }


def export_onnx(model: nn.Module, example: Any, path: Path, **options: Any) -> Path:
    """`model` as an ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, example, str(path), **{"dynamo": False, "verbose": False, **options})
    return path


def export_pt2(model: nn.Module, example: Any, path: Path, **options: Any) -> Path:
    """`model` as a .pt2 file."""
    torch.export.save(torch.export.export(model, example, **options), path)
    return path


def check_normal_form(imported: Imported, entry: ZooEntry, model: nn.Module, outputs: list[str]) -> None:
    """One dataflow block; no batch norm, no arithmetic on constants; each layer's name on its variable."""
    assert relax.analysis.well_formed(imported.module) in (True, None)
    count = operators(imported)
    assert "relax.nn.batch_norm" not in count
    assert not [name for name in count if not name.startswith("relax.") or "call_tir" in name]
    for binding in main_bindings(imported.module) or []:
        args = getattr(binding.value, "args", ())
        assert not args or any(constant_value(arg) is None for arg in args if not isinstance(arg, relax.ShapeExpr))
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }
    found = weights(imported)
    assert set(found) == set(layers)
    assert all(found[name].size == layer.weight.numel() for name, layer in layers.items())
    assert layer_names(imported.module) == dict(imported.layer_names)
    assert imported.inputs == (TensorSpec(entry.input_name, entry.shape, "float32"),)
    assert [spec.name for spec in imported.outputs] == outputs


@pytest.mark.parametrize("name", ZOO)
def test_module_and_pt2(name: str, tmp_path: Path) -> None:
    entry = ZOO[name]
    model = entry.build()
    module = load_model(model, {entry.input_name: entry.shape})
    check_normal_form(module, entry, model, ["output"])
    assert module.source == type(model).__name__
    file = load_model(export_pt2(model, (entry.example(),), tmp_path / "model.pt2"))
    check_normal_form(file, entry, model, ["output"])
    assert operators(file) == operators(module)


@pytest.mark.parametrize("name", ZOO)
def test_onnx(name: str, tmp_path: Path) -> None:
    entry = ZOO[name]
    model = entry.build()
    path = export_onnx(
        model, (entry.example(),), tmp_path / "m.onnx", input_names=[entry.input_name], output_names=["logits"]
    )
    imported = load_model(path)
    check_normal_form(imported, entry, model, ["logits"])
    module = operators(load_model(model, {entry.input_name: entry.shape}))
    split, slices = module.pop("relax.split", 0), operators(imported)
    assert bool(slices.pop("relax.strided_slice", 0)) == bool(split)
    assert slices == module


@pytest.mark.parametrize("name", ["mobilenet_v3", "unet"])
def test_onnx_dynamo_with_external_weights(name: str, tmp_path: Path) -> None:
    entry = ZOO[name]
    model = entry.build()
    path = export_onnx(
        model,
        (entry.example(),),
        tmp_path / "m.onnx",
        input_names=[entry.input_name],
        output_names=["logits"],
        dynamo=True,
        external_data=True,
    )
    assert (tmp_path / "m.onnx.data").is_file()
    imported = load_model(path)
    check_normal_form(imported, entry, model, ["logits"])
    assert operators(imported) == operators(load_model(model, {entry.input_name: entry.shape}))


@pytest.mark.parametrize("opset", [11, 13, 16])
def test_onnx_opsets(opset: int, tmp_path: Path) -> None:
    entry = ZOO["mobilenet_v3"]
    model = entry.build()
    path = export_onnx(model, (entry.example(),), tmp_path / "m.onnx", opset_version=opset, input_names=["x"])
    imported = load_model(path)
    assert operators(imported) == operators(load_model(model, {"x": entry.shape}))


class Shapes(nn.Module):
    """Shape arithmetic, several outputs, a layer that is applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding="same")
        self.fc = nn.Linear(4 * 36, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        left, right = self.conv(left), self.conv(right)
        first, second = left.chunk(2, 1)
        joined = torch.cat([second, first], 1) + right
        return {"scores": self.fc(joined.view(joined.size(0), -1)), "features": joined}


def test_shared_layer_and_dict_outputs() -> None:
    imported = load_model(Shapes(), {"left": (1, 4, 6, 6), "right": (1, 4, 6, 6)})
    assert [spec.name for spec in imported.inputs] == ["left", "right"]
    assert [(spec.name, spec.shape) for spec in imported.outputs] == [("scores", (1, 2)), ("features", (1, 4, 6, 6))]
    assert sorted(imported.layer_names.values()) == ["conv", "conv", "fc"]


def test_tuple_outputs_and_example() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.relu(), x.sigmoid()

    imported = load_model(Two(), example=(torch.zeros(1, 3),))
    assert [spec.name for spec in imported.outputs] == ["output_0", "output_1"]


def test_layer_as_output_keeps_its_name() -> None:
    imported = load_model(nn.Sequential(nn.Conv2d(2, 3, 1, bias=False)).eval(), {"input": (1, 2, 4, 4)})
    assert list(weights(imported)) == ["0"]


def test_dynamic_batch(tmp_path: Path) -> None:
    example = (torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6))
    shapes = {"left": (1, 4, 6, 6), "right": (1, 4, 6, 6)}
    batch = torch.export.Dim("batch", min=1, max=64)
    pt2 = export_pt2(
        Shapes().eval(), example, tmp_path / "m.pt2", dynamic_shapes={"left": {0: batch}, "right": {0: batch}}
    )
    onnx_path = export_onnx(
        Shapes().eval(),
        example,
        tmp_path / "m.onnx",
        input_names=["left", "right"],
        output_names=["scores", "features"],
        dynamic_axes={"left": {0: "n"}, "right": {0: "n"}},
    )
    for path in (pt2, onnx_path):
        imported = load_model(path, shapes)
        assert imported.inputs[0].shape == (1, 4, 6, 6)
        assert [spec.shape for spec in imported.outputs] == [(1, 2), (1, 4, 6, 6)]
        assert sorted(imported.layer_names.values())[0] == "conv"


@pytest.mark.parametrize("written", [-1, 0])
def test_an_open_batch_may_be_written_as_a_number(written: int, tmp_path: Path) -> None:
    def open_batch(name: str) -> onnx.ValueInfoProto:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4])
        value.type.tensor_type.shape.dim[0].dim_value = written
        return value

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "open", [open_batch("x")], [open_batch("y")]
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    path = tmp_path / "open.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    assert load_model(path, {"x": (2, 3, 4, 4)}).outputs[0].shape == (2, 3, 4, 4)
    with pytest.raises(UsageError, match=r"input x has dynamic dimensions \(found \?x3x4x4"):
        load_model(path)


def test_module_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout()).train()
    before = model[0].weight.detach().clone()
    imported = load_model(model, {"input": (1, 2, 5, 5)})
    assert model.training
    assert model[1].training
    weight = weights(imported)["0"].copy()
    with torch.no_grad():
        model[0].weight.zero_()
    assert (weights(imported)["0"] == weight).all()
    assert before.abs().sum() > 0
    assert set(operators(imported)) == {"relax.nn.conv2d", "relax.add"}


def test_silu_only_where_the_gate_is_its_own_input() -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(y) + y * torch.sigmoid(y)

    count = operators(load_model(Gate(), {"x": (1, 3), "y": (1, 3)}))
    assert count["relax.nn.silu"] == 1
    assert count["relax.sigmoid"] == 1
