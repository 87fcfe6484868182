"""Masks and batch norm are folded into the weights, and pruned weights stay exactly zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_frontend import export_onnx, export_pt2, operators, weights
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from pconvgen.errors import PconvgenError
from pconvgen.frontend import load_model

SHAPE = (1, 8, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 8, 1)).eval()
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    return model


def pruned() -> tuple[nn.Module, Any]:
    model = network()
    prune.random_unstructured(model[0], "weight", 0.5)
    return model, (model[0].weight_mask == 0).numpy()


def sparsified() -> tuple[nn.Module, Any]:
    model = network()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    with torch.no_grad():
        mask = model[0].parametrizations.weight[0].mask
        mask.copy_((torch.rand(mask.shape) > 0.5).float())
    return model, (mask == 0).numpy()


def frozen_mask() -> tuple[nn.Module, Any]:
    """A model of somebody who multiplies with a comparison in forward()."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.conv.weight * (self.conv.weight.abs() > 0.05)
            return nn.functional.conv2d(x, weight, self.conv.bias)

    torch.manual_seed(0)
    model = Masked().eval()
    return model, (model.conv.weight.abs() <= 0.05).numpy()


@pytest.mark.parametrize("make", [pruned, sparsified, frozen_mask])
@pytest.mark.parametrize("form", ["module", "pt2", "onnx"])
def test_masks_are_folded(make: Any, form: str, tmp_path: Path) -> None:
    model, zeros = make()
    example = (torch.randn(SHAPE),)
    if form == "module":
        imported = load_model(model, example=example)
    elif form == "pt2":
        imported = load_model(export_pt2(model, example, tmp_path / "m.pt2"))
    else:
        imported = load_model(export_onnx(model, example, tmp_path / "m.onnx"))
    weight = next(iter(weights(imported).values()))
    assert ((weight == 0) == zeros).all()
    assert not {"relax.multiply", "relax.nn.batch_norm", "relax.greater"} & set(operators(imported))
    if form != "onnx":
        assert next(iter(weights(imported))) in ("0", "conv")


def norm(channels: int, dims: int = 2) -> nn.Module:
    layer = (nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d)(channels).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in (layer.weight, layer.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
    for tensor in (layer.bias, layer.running_mean):
        nn.init.normal_(tensor, generator=generator)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda bias: nn.Conv2d(4, 6, 3, bias=bias), (1, 4, 5, 5)),
        (lambda bias: nn.Conv2d(4, 6, 3, groups=2, bias=bias), (1, 4, 5, 5)),
        (lambda bias: nn.ConvTranspose2d(4, 6, 3, stride=2, bias=bias), (1, 4, 5, 5)),
        (lambda bias: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=bias), (1, 4, 5, 5)),
        (lambda bias: nn.Linear(4, 6, bias=bias), (2, 4)),
    ],
    ids=["conv", "grouped", "transposed", "grouped_transposed", "linear"],
)
def test_batch_norm_scales_the_weight(layer: Any, shape: tuple[int, ...], bias: bool) -> None:
    model = nn.Sequential(layer(bias), norm(6, len(shape) // 2)).eval()
    imported = load_model(model, {"input": shape})
    count = operators(imported)
    assert count.pop("relax.add") == 1
    assert sum(count.values()) == 1
    scale = (model[1].weight / (model[1].running_var + model[1].eps).sqrt()).detach().numpy()
    weight, source = weights(imported)["0"], model[0].weight.detach().numpy()
    if isinstance(model[0], nn.Linear):
        expected = source.T * scale
    elif isinstance(model[0], nn.ConvTranspose2d):
        groups = model[0].groups
        parts = [
            part * factor.reshape(1, -1, 1, 1)
            for part, factor in zip(np.split(source, groups), np.split(scale, groups), strict=True)
        ]
        expected = np.concatenate(parts)
    else:
        expected = source * scale.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_batch_norm_elsewhere_becomes_scale_and_shift() -> None:
    class Shared(nn.Module):
        """A batch norm in front, and one behind a convolution whose result is used twice."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.second = norm(4), nn.Conv2d(4, 4, 1), norm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(self.first(x))
            return y + self.second(y)

    model = Shared().eval()
    imported = load_model(model, {"x": (1, 4, 3, 3)})
    assert operators(imported) == {"relax.multiply": 2, "relax.add": 4, "relax.nn.conv2d": 1}
    assert (weights(imported)["conv"] == model.conv.weight.detach().numpy()).all()


def test_onnx_batch_norm_is_folded(tmp_path: Path) -> None:
    model = network()
    options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    path = export_onnx(model, (torch.randn(SHAPE),), tmp_path / "m.onnx", **options)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    imported = load_model(path)
    assert operators(imported) == {"relax.nn.conv2d": 2, "relax.add": 2, "relax.nn.relu": 1}
    assert "BatchNormalization" in nodes


def test_negative_variance_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    model[1].running_var[0] = -1
    with pytest.raises(PconvgenError, match=r"layer 0: .*negative running variance"):
        load_model(model, {"input": (1, 2, 3, 3)})


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_onnx_auto_pad_clip_and_pad_stay_operators(mode: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["x", "pads"], ["padded"]),
            helper.make_node("Conv", ["padded", "features.0.weight"], ["conv"], auto_pad=mode, strides=[2, 2]),
            helper.make_node("Clip", ["conv", "low", "high"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [
            numpy_helper.from_array(np.array([0, 0, 0, 1, 0, 0, 1, 0], np.int64), "pads"),
            numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "features.0.weight"),
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(6), "high"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    imported = load_model(tmp_path / "m.onnx")
    assert operators(imported) == {"relax.nn.pad": 1, "relax.nn.conv2d": 1, "relax.clip": 1}
    assert list(weights(imported)) == ["features.0"]
    assert imported.outputs[0].shape == ((1, 2, 4, 4) if mode == "VALID" else (1, 2, 5, 5))
