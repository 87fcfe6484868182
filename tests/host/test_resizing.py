"""Resizing in every way that PyTorch and ONNX know, against PyTorch and onnxruntime."""

from __future__ import annotations

import random
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
from pconvgen.frontend import load_model
from pconvgen.pipeline import run
from tests.nodes import Node, differing, disagreements
from tests.relax_modules import HOST

pytestmark = pytest.mark.host

SHAPES = {"image": (1, 2, 7, 6), "signal": (1, 2, 9), "volume": (1, 2, 4, 5, 3)}
INPUTS = {name: np.random.default_rng(0).standard_normal(shape).astype("f") for name, shape in SHAPES.items()}
FACTORS = [1, 2, 3, 0.5, 1.5, 2.5, 0.7, 1 / 3, 0.35, 1.3, 1.05]
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


def sizes(rng: random.Random, shape: tuple[int, ...]) -> list[int]:
    return [rng.choice([1, 2, 3, size, 2 * size, size + 3, size - 1, 2 * size + 1]) for size in shape[2:]]


def node(rng: random.Random) -> tuple[str, Node]:
    """A name and a Resize."""
    name = rng.choices(list(SHAPES), [6, 1, 1])[0]
    dims = len(SHAPES[name]) - 2
    mode = rng.choice(["nearest", "linear", "cubic"] if dims == 2 else ["nearest", "linear"])
    crop = rng.randrange(6) == 0
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": rng.choice(COORDINATES)}
    roi = None
    if mode == "nearest":
        # Which of two elements is nearest is up to rounding with half_pixel_symmetric.
        coordinates = rng.choice(COORDINATES[:-1])
        given |= {"nearest_mode": rng.choice(ROUNDINGS), "coordinate_transformation_mode": coordinates}
    if crop:
        begin, end = ([rng.choice(places) for _ in range(dims)] for places in ([0, 0.1, -0.2], [1, 0.8, 1.3]))
        roi = np.array([0, 0, *begin, 1, 1, *end], "f")
        given |= {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5}
    elif mode != "nearest" and rng.randrange(3) == 0:
        given |= {"antialias": 1, "exclude_outside": rng.randrange(2)}
    if mode == "cubic":
        given |= {"cubic_coeff_a": rng.choice([-0.75, -0.5]), "exclude_outside": rng.randrange(2)}
    lead: tuple[float, ...] = (1, 1)
    if not crop and rng.randrange(4) == 0:
        given["axes"], lead = [[2, 3, 4][:dims], [-1, -2, -3][:dims]][rng.randrange(2)], ()
    if rng.randrange(2):
        scales = np.array([*lead, *(rng.choice(FACTORS) for _ in range(dims))], "f")
        return f"{name} {given} {scales} {roi}", Node("Resize", (name, roi, scales), given)
    if mode == "nearest" and not crop and rng.randrange(3) == 0:
        given["keep_aspect_ratio_policy"] = rng.choice(["not_larger", "not_smaller", "stretch"])
    after = sizes(rng, SHAPES[name])
    # What keeps its aspect ratio has at least one element, and so few that channels stay.
    after = [size + 2 for size in after] if "keep_aspect_ratio_policy" in given else after
    wanted = np.array([*(SHAPES[name][:2] if lead else ()), *after], np.int64)
    if "keep_aspect_ratio_policy" in given and lead:
        given["axes"], wanted = list(range(2, 2 + dims)), wanted[2:]
    elif "keep_aspect_ratio_policy" in given:
        given["axes"] = [axis % (2 + dims) for axis in given["axes"]]
    return f"{name} {given} {wanted} {roi}", Node("Resize", (name, roi, None, wanted), given)


def interpolation(rng: random.Random) -> tuple[str, Callable[..., Any]]:
    """A name and a call of interpolate()."""
    name = rng.choices(list(SHAPES), [6, 1, 2])[0]
    dims = len(SHAPES[name]) - 2
    smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[dims]
    given: dict[str, Any] = {"mode": rng.choice([*smooth, *smooth, "nearest", "nearest-exact", "area"])}
    if given["mode"] in smooth:
        given["align_corners"] = rng.random() < 0.5
    if given["mode"] in ("bilinear", "bicubic") and rng.randrange(3) == 0:
        given |= {"antialias": True, "align_corners": False}
    if rng.randrange(2):
        given["size"] = sizes(rng, SHAPES[name])
        if given.get("antialias") and given["size"][-1] == 1:
            given["size"][-1] = 2
    else:
        given["scale_factor"] = [rng.choice(FACTORS) for _ in range(dims)]
        given["recompute_scale_factor"] = rng.randrange(3) == 0
    place = list(SHAPES).index(name)
    return f"{name} {given}", lambda *tensors: functional.interpolate(tensors[place], **given)


class Functions(nn.Module):
    """Many functions of the same inputs."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, image: torch.Tensor, signal: torch.Tensor, volume: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: function(image, signal, volume) for name, function in self.functions.items()}


def check_torch(functions: dict[str, Callable[..., Any]]) -> None:
    model, example = Functions(functions), tuple(map(torch.from_numpy, INPUTS.values()))
    expected = {name: value.numpy() for name, value in model(*example).items()}
    assert not disagreements(pconvgen.compile(model, example=example).run(INPUTS), expected)


def check_onnx(seed: int, count: int, path: Path) -> None:
    rng = random.Random(seed)
    assert not differing(dict(node(rng) for _ in range(count)), INPUTS, path)


def test_random_resizing_of_onnx(tmp_path: Path) -> None:
    check_onnx(0, 80, tmp_path / "m.onnx")


def test_random_resizing_of_torch() -> None:
    rng = random.Random(0)
    check_torch(dict(interpolation(rng) for _ in range(60)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_more_random_resizing(seed: int, tmp_path: Path) -> None:
    check_onnx(seed, 150, tmp_path / "m.onnx")
    rng = random.Random(seed)
    check_torch(dict(interpolation(rng) for _ in range(150)))


def test_corners_are_aligned_for_the_size_that_comes_out(tmp_path: Path) -> None:
    nodes = {
        f"{mode} {factor} {rounding}": Node(
            "Resize",
            ("image", None, np.array([1, 1, factor, factor], "f")),
            {"mode": mode, "coordinate_transformation_mode": "align_corners", "nearest_mode": rounding},
        )
        for factor in (1.5, 2.5)
        for mode, rounding in (("linear", "floor"), ("cubic", "floor"), *(("nearest", each) for each in ROUNDINGS))
    }
    assert not differing(nodes, INPUTS, tmp_path / "m.onnx")


def test_one_element_comes_out(tmp_path: Path) -> None:
    nodes = {
        f"{mode} {coordinates} {rounding}": Node(
            "Resize",
            ("image", None, None, np.array([1, 2, 1, 1])),
            {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding},
        )
        for coordinates in COORDINATES[:-1]
        for mode, rounding in (("linear", "floor"), ("cubic", "floor"), *(("nearest", each) for each in ROUNDINGS))
    }
    assert not differing(nodes, INPUTS, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "given",
    [
        {"scale_factor": 2, "mode": "nearest"},
        {"scale_factor": 2, "mode": "bilinear"},
        {"size": (13, 9), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 1.5, "mode": "bicubic"},
        {"scale_factor": 0.5, "mode": "bilinear", "antialias": True},
    ],
)
def test_images_are_resized_by_a_generated_kernel(given: dict[str, Any]) -> None:
    functions = {"y": lambda image, *_: functional.interpolate(image, **given)}
    imported = load_model(Functions(functions), example=tuple(map(torch.from_numpy, INPUTS.values())))
    kernels = [variable.name_hint for variable in run(imported.module, HOST).functions]
    assert sorted(kernels) == ["main", "resize_0"]


def test_antialiasing_that_depends_on_the_memory_format_is_refused() -> None:
    functions = {"y": lambda image, *_: functional.interpolate(image, (3, 1), mode="bilinear", antialias=True)}
    with pytest.raises(PconvgenError, match="memory format"):
        check_torch(functions)
