"""Networks that scale up by transposed convolutions and down by pooling, pruned, from both formats, end to end."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import pconvgen
from pconvgen.frontend import load_model
from pconvgen.sparsify import Recipe, sparsify_file
from tests.networks import TOLERANCE, relative_error
from tests.references import transposed_convolution
from tests.segmenter import SHAPE, UPS, segmenter

pytestmark = pytest.mark.host


def source(model: nn.Module, kind: str, folder: Path) -> Any:
    if kind == "torch":
        return load_model(model, example=(torch.zeros(SHAPE),))
    path = folder / "segmenter.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["image"], "output_names": ["classes"]}
        torch.onnx.export(model, (torch.zeros(SHAPE),), str(path), dynamo=False, **names)
    return load_model(path)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("structure", [None, "unstructured", "simd_block", "block_punched", "pattern", "filter"])
def test_pruned_segmenter(structure: str | None, kind: str, tmp_path: Path) -> None:
    model = segmenter(structure)
    compiled = pconvgen.compile(source(model, kind, tmp_path))
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    (found,) = compiled.run(image).values()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    decisions = {decision.name.removeprefix("/").replace("/", "."): decision for decision in compiled.decisions}
    assert not [name for name, decision in decisions.items() if decision.choice == "tvm"]
    up = [decision for decision in compiled.decisions if decision.op == "conv2d_transpose"]
    assert [decision.shape for decision in up] == [*UPS.values(), (5, 1, 8, 8)]
    if kind == "torch":
        assert decisions.keys() >= UPS.keys()
        for name, shape in UPS.items():
            weight = model.get_submodule(name).weight
            assert decisions[name].shape == shape
            assert decisions[name].density == pytest.approx(float((weight != 0).float().mean()))
    if structure == "simd_block":
        assert {decision.structure for decision in up[:3]} == {"simd_block"}


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_files_are_pruned_like_modules(kind: str, tmp_path: Path) -> None:
    model = segmenter(None)
    path, output = tmp_path / f"segmenter.{kind}", tmp_path / f"pruned.{kind}"
    if kind == "pt2":
        torch.export.save(torch.export.export(model, (torch.zeros(SHAPE),)), path)
    else:
        source(model, kind, tmp_path)
    rows = {row.shape: row for row in sparsify_file(path, output, Recipe("simd_block", 0.25))}
    assert rows[(8, 16, 4, 4)].op == "conv2d_transpose", "filters first, half of the channels: two groups"
    assert rows[(8, 16, 4, 4)].density == 0.25
    compiled = pconvgen.compile(output)
    (up1,) = [decision for decision in compiled.decisions if decision.shape == UPS["up1.0"]]
    assert (up1.structure, up1.density) == ("simd_block", 0.25)
    if kind == "pt2":
        assert relative_error(compiled) <= TOLERANCE


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "VALID", "strides": [3, 2], "output_padding": [1, 0]},
        {"output_shape": [20, 24], "strides": [4, 4]},  # more than the kernel: outputs that no input reaches
        {"output_shape": [10, 13], "strides": [2, 2]},
        {"output_shape": [12, 14], "strides": [2, 2], "output_padding": [1, 0], "auto_pad": "SAME_UPPER"},
        {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [2, 3]},
        {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ],
)
def test_onnx_attributes(attributes: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 4, 5, 6), (4, 3, 3, 3)))
    groups = attributes.get("group", 1)
    bias = rng.standard_normal(3 * groups).astype(np.float32)
    tensors = [numpy_helper.from_array(array, name) for array, name in ((weight, "w"), (bias, "b"))]
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], "up", **attributes)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, data.shape)]
    values.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4))
    graph = helper.make_graph([node], "g", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")

    # The specification: the surplus over the wanted size is cut off; SAME_UPPER cuts off more behind.
    strides, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    behind, pads = attributes.get("output_padding", [0, 0]), attributes.get("pads", [0, 0, 0, 0])
    wanted, mode = attributes.get("output_shape"), attributes.get("auto_pad", "NOTSET")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(data.shape[2:], strides, strict=True)]
    if wanted is not None:
        whole = [(n - 1) * s + 3 + b for n, s, b in zip(data.shape[2:], strides, behind, strict=True)]
        surplus = [size - goal for size, goal in zip(whole, wanted, strict=True)]
        behind = [b + max(-extra, 0) for b, extra in zip(behind, surplus, strict=True)]
        small = [max(extra, 0) // 2 for extra in surplus]
        large = [max(extra, 0) - low for extra, low in zip(surplus, small, strict=True)]
        pads = small + large if mode == "SAME_UPPER" else large + small
    expected = transposed_convolution(data, weight, strides, pads, behind, dilation, groups) + bias[:, None, None]

    compiled = pconvgen.compile(tmp_path / "m.onnx")
    (found,) = compiled.run(data).values()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert [decision.op for decision in compiled.decisions if decision.choice != "tvm"] == ["conv2d_transpose"]
