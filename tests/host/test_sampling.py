"""Grids, affine grids and boxes, against PyTorch and onnxruntime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import pconvgen
from pconvgen.errors import PconvgenError
from tests.nodes import Node, differing, disagreements, write

pytestmark = pytest.mark.host

RNG = np.random.default_rng(0)
# Grids reach far outside of what they sample; a box has no area, others reach outside.
INPUTS = {
    "image": RNG.standard_normal((1, 2, 5, 6)).astype("f"),
    "volume": RNG.standard_normal((1, 2, 3, 4, 5)).astype("f"),
    "grid": RNG.uniform(-2.2, 2.2, (1, 4, 7, 2)).astype("f"),
    "places": RNG.uniform(-2.2, 2.2, (1, 2, 3, 4, 3)).astype("f"),
    "flat": RNG.standard_normal((2, 2, 3)).astype("f"),
    "solid": RNG.standard_normal((2, 3, 4)).astype("f"),
    "boxes": np.array([[0, 0, 3, 3], [1, 0.5, 4.5, 2], [-1, -1, 6, 5], [2, 2, 2, 2], [3, 1, 1, 4]], "f"),
}
METHODS = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}
PADDINGS = ["zeros", "border", "reflection"]
SIZES = {"flat": [2, 3, 4, 5], "solid": [2, 3, 2, 4, 5]}


class Functions(nn.Module):
    """Many functions of the same inputs."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, image: Any, volume: Any, grid: Any, places: Any, flat: Any, solid: Any, boxes: Any) -> Any:
        given = dict(zip(INPUTS, (image, volume, grid, places, flat, solid, boxes), strict=True))
        return {name: function(given) for name, function in self.functions.items()}


def check_torch(functions: dict[str, Callable[..., Any]]) -> None:
    model, example = Functions(functions), tuple(map(torch.from_numpy, INPUTS.values()))
    expected = {name: value.numpy() for name, value in model(*example).items()}
    assert not disagreements(pconvgen.compile(model, example=example).run(INPUTS), expected)


EVERY = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
"""A sample of all cases, and all of them."""


@EVERY
def test_grids_and_affine_grids_of_torch(step: int) -> None:
    functions: dict[str, Callable[..., Any]] = {}
    constant = torch.from_numpy(INPUTS["grid"])
    for mode, padding, align in itertools.product(METHODS.values(), PADDINGS, (False, True)):
        given = {"mode": mode, "padding_mode": padding, "align_corners": align}
        name = f"{mode} {padding} {align}"
        functions[name] = lambda x, given=given: functional.grid_sample(x["image"], x["grid"], **given)
        functions[f"{name}, constant"] = lambda x, given=given: functional.grid_sample(x["image"], constant, **given)
        if mode != "bicubic":
            functions[f"{name}, 3d"] = lambda x, given=given: functional.grid_sample(x["volume"], x["places"], **given)
    for (name, size), align in itertools.product(SIZES.items(), (False, True)):
        for last in (size[-1], 1):
            sizes = [*size[:-1], last]
            functions[f"{name} {sizes} {align}"] = lambda x, name=name, sizes=sizes, align=align: (
                functional.affine_grid(x[name], sizes, align_corners=align)
            )
    check_torch(dict(itertools.islice(functions.items(), 0, None, step)))


@EVERY
def test_grids_boxes_and_affine_grids_of_onnx(step: int, tmp_path: Path) -> None:
    nodes = {}
    for mode, padding, align in itertools.product(METHODS, PADDINGS, (0, 1)):
        given = {"mode": mode, "padding_mode": padding, "align_corners": align}
        nodes[f"{mode} {padding} {align}"] = Node("GridSample", ("image", "grid"), given)
        if mode != "cubic":
            nodes[f"{mode} {padding} {align}, 3d"] = Node("GridSample", ("volume", "places"), given)
    for (name, size), align in itertools.product(SIZES.items(), (0, 1)):
        nodes[f"{name} {align}"] = Node("AffineGrid", (name, np.array(size)), {"align_corners": align})
    for mode, ratio, scale in itertools.product(("half_pixel", "output_half_pixel"), (0, 1, 2), (1.0, 0.5)):
        given = {"coordinate_transformation_mode": mode, "sampling_ratio": ratio, "spatial_scale": scale}
        given |= {"output_height": 2, "output_width": 3}
        nodes[f"{mode} {ratio} {scale}"] = Node("RoiAlign", ("image", "boxes", np.zeros(5, np.int64)), given)
    assert not differing(dict(itertools.islice(nodes.items(), 0, None, step)), INPUTS, tmp_path / "m.onnx")


def test_old_models_do_not_align_boxes(tmp_path: Path) -> None:
    nodes = {
        "y": Node("RoiAlign", ("image", "boxes", np.zeros(5, np.int64)), {"output_height": 2, "spatial_scale": 0.5})
    }
    assert not differing(nodes, INPUTS, tmp_path / "m.onnx", opset=13)


@pytest.mark.parametrize(
    "node",
    [
        Node("RoiAlign", ("image", "boxes", np.zeros(5, np.int64)), {"mode": "max"}),
        Node("AffineGrid", ("flat", np.array([2, 3, 4, 1])), {"align_corners": 1}),
    ],
)
def test_what_runtimes_disagree_on_is_refused(node: Node, tmp_path: Path) -> None:
    write({"the node": node}, INPUTS, tmp_path / "m.onnx", 20)
    with pytest.raises(PconvgenError, match="different opinions"):
        pconvgen.compile(tmp_path / "m.onnx")


def test_boxes_of_torchvision_are_scaled_before_half_a_pixel_is_taken_off() -> None:
    # torchvision's operator without torchvision.
    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "roi_align"):
        library.define(
            "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
            "int sampling_ratio, bool aligned) -> Tensor"
        )

        def shape(data: Any, rois: Any, scale: float, height: int, width: int, ratio: int, aligned: bool) -> Any:
            return data.new_empty(len(rois), data.shape[1], height, width)

        torch.library.register_fake("torchvision::roi_align", shape, lib=library)

    class Boxes(nn.Module):
        def forward(self, x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            return torch.ops.torchvision.roi_align(x, boxes, 0.5, 1, 1, 1, True)

    data, boxes = np.arange(16, dtype="f").reshape(1, 1, 4, 4), np.array([[0, 0, 0, 8, 8]], "f")
    example = (torch.from_numpy(data), torch.from_numpy(boxes))
    (found,) = pconvgen.compile(Boxes(), example=example).run({"x": data, "boxes": boxes}).values()
    np.testing.assert_allclose(found, [[[[7.5]]]])
