"""PyTorch models in other types than float32, and integers beside floats, compute what PyTorch computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenWarning
from pconvgen.frontend import load_model
from pconvgen.frontend.torch.quantised import register
from pconvgen.verify import verify

SHAPE = (1, 3, 8, 8)


def computed(model: nn.Module, *args: torch.Tensor) -> tuple[list[Any], list[Any]]:
    """What the compiled model returns, and what PyTorch does."""
    compiled = pconvgen.compile(torch.export.export(model.eval(), args))
    inputs = {name: arg for (name, _, _), arg in zip(compiled.manifest.inputs, args, strict=True)}
    with torch.no_grad():
        results = model(*args)
    results = results if isinstance(results, tuple) else (results,)
    assert [dtype for _, _, dtype in compiled.manifest.outputs] == [str(y.numpy().dtype) for y in results]
    return list(compiled.run(inputs).values()), [result.numpy() for result in results]


class Mixed(nn.Module):
    """Integers, booleans and floats in one expression; each has the type that PyTorch gives it."""

    EXPRESSIONS = """
        torch.cat([x[0, 0, 0, :4], index]); torch.stack([index, index.float()]); index + 0.5
        index * x[0, 0, 0, :4]; torch.where(mask, x, 1); torch.where(x > 0, x, wide)
        wide / 2; wide // 3; wide % 3
        torch.pow(wide, 2); torch.sqrt(wide); torch.maximum(x, wide)
        wide > 0.5; mask + 1; mask * x
        mask.sum(); mask + mask; mask * (x > 0)
        torch.clamp(wide, 0, 2); torch.clamp(wide, 0.5, 1.5); wide.clamp(min=1)
        x.argmax(1) * 2.5; narrow + wide; narrow > wide
        torch.cat([narrow, wide]); x.int(); x.bool()
        1.5 - wide; narrow.cumsum(0); torch.arange(8) * x
        (index // 8).float(); torch.stack([index, index.int()]); torch.fmod(wide, 3)
        torch.div(wide, 3, rounding_mode="trunc"); torch.div(x, 3, rounding_mode="trunc"); x.masked_fill(mask, 3)
        torch.div(wide, 3, rounding_mode="floor"); torch.div(x, 3, rounding_mode="floor"); torch.minimum(wide, narrow)
    """

    def forward(
        self, x: torch.Tensor, wide: torch.Tensor, narrow: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        index = x.flatten().topk(4)[1]
        scope = {"x": x, "wide": wide, "narrow": narrow, "mask": mask, "index": index, "torch": torch}
        return tuple(eval(text, scope) for text in self.texts())

    @classmethod
    def texts(cls) -> list[str]:
        return [text for text in map(str.strip, re.split("[;\n]", cls.EXPRESSIONS)) if text]


def test_integers_and_floats_are_promoted_as_pytorch_does() -> None:
    torch.manual_seed(0)
    wide, narrow = torch.randint(-5, 6, SHAPE), torch.randint(-5, 6, SHAPE, dtype=torch.int32)
    found, expected = computed(Mixed(), torch.randn(SHAPE), wide, narrow, torch.rand(SHAPE) > 0.5)
    wrong = [
        text
        for text, y, reference in zip(Mixed.texts(), found, expected, strict=True)
        if y.dtype != reference.dtype or not np.allclose(y, reference, 1e-5, 1e-5, equal_nan=True)
    ]
    assert wrong == []


class CentreHead(nn.Module):
    """Peaks of a heat map, their offsets and sizes, as boxes with classes: the head of CenterNet."""

    def __init__(self) -> None:
        super().__init__()
        self.heat, self.box = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heat, box = self.heat(x).sigmoid(), self.box(x)
        height, width = heat.shape[2:]
        heat = heat * (nn.functional.max_pool2d(heat, 3, 1, 1) == heat)
        scores, index = heat.flatten(1).topk(6)
        place = index % (height * width)
        centres = torch.stack([place % width, place // width], 2) + 0.5
        parts = box.flatten(2).gather(2, place[:, None].expand(-1, 4, -1)).transpose(1, 2)
        kind = index // (height * width)
        corners = torch.cat([centres + parts[..., :2], parts[..., 2:]], 2) * 4
        return torch.cat([corners, kind[..., None], scores[..., None]], 2)


def test_heads_of_detectors_have_integers_beside_floats() -> None:
    torch.manual_seed(0)
    (found,), (expected,) = computed(CentreHead(), torch.randn(SHAPE))
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4)


class Bytes(nn.Module):
    """Normalises an image of bytes; the padding of the convolution is in normalised numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> Any:
        return self.conv((image / 255 - 0.5) / 0.25), self.conv(image.float()), image + 200, image // 3, image.sum()


def test_images_of_bytes_stay_bytes_at_the_boundary() -> None:
    torch.manual_seed(0)
    found, expected = computed(Bytes(), torch.randint(0, 256, SHAPE, dtype=torch.uint8))
    for y, reference in zip(found, expected, strict=True):
        assert y.dtype == reference.dtype
        np.testing.assert_allclose(y, reference, 1e-5, 1e-4)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(
    ("dtype", "end", "tolerance"),
    [(torch.float64, "float64", 1e-6), (torch.float16, "float16", 3e-3), (torch.bfloat16, "float32", 3e-2)],
)
def test_networks_in_other_floats_are_computed_in_float32(
    dtype: torch.dtype, end: str, tolerance: float, tmp_path: Path
) -> None:
    model, image = classifier().to(dtype), torch.randn(SHAPE).to(dtype)
    torch.export.save(torch.export.export(model, (image,)), tmp_path / "m.pt2")
    with pytest.warns(PconvgenWarning, match=f"{str(dtype)[6:]} in the model, computed in float32"):
        compiled = pconvgen.compile(tmp_path / "m.pt2")
    assert compiled.manifest.inputs[0][1:] == (SHAPE, end)
    assert compiled.manifest.outputs[0][1:] == ((1, 4), end)
    with torch.no_grad():
        expected = model.double()(image.double()).numpy()
    found = compiled.run(image)["output"]
    assert found.dtype == end
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    assert [decision.name for decision in compiled.decisions] == ["0", "5"]
    assert verify(compiled, (0,)).passed


class HalfInside(nn.Module):
    """A backbone in float16 between ends in float32, with constants and casts of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).half()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> Any:
        inner = self.conv(x.half() - self.mean + torch.full((8, 8), 2, dtype=torch.float16))
        return inner.float().mean((2, 3)), inner + torch.arange(6, dtype=torch.float16)


@pytest.mark.filterwarnings("ignore::pconvgen.errors.PconvgenWarning")
def test_float16_inside_with_float32_ends() -> None:
    torch.manual_seed(0)
    found, expected = computed(HalfInside(), torch.randn(SHAPE))
    for y, reference in zip(found, expected, strict=True):
        assert y.dtype == reference.dtype
        np.testing.assert_allclose(y, reference, 5e-3, 5e-3)


def test_a_module_in_float16_needs_only_the_shapes_of_its_inputs() -> None:
    with pytest.warns(PconvgenWarning, match="float16"):
        imported = load_model(classifier().half(), {"input": SHAPE})
    assert imported.inputs[0].dtype == "float16"


class Quantised(nn.Module):
    """As PT2E leaves a convolution: activations rounded around it, its weight in bytes with scales of channels."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(-128, 128, (8, 3, 3, 3), dtype=torch.int8)
        self.register_buffer("weight", torch.where(weight.abs() < 90, torch.zeros_like(weight), weight))
        self.register_buffer("scales", torch.rand(8) / 100 + 0.001)
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> Any:
        ops, limits = torch.ops.quantized_decomposed, (-128, 127, torch.int8)
        x = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, 0.03, 3, *limits), 0.03, 3, *limits)
        weight = ops.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, *limits)
        y = torch.conv2d(x, weight, None, 1, 1)
        return y, ops.quantize_per_channel(y, self.scales * 10, self.zeros + 5, 1, *limits)


def test_programs_of_pt2e_keep_their_zeros_and_their_numbers(tmp_path: Path) -> None:
    register()
    torch.manual_seed(0)
    model, x = Quantised(), torch.randn(SHAPE)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "m.pt2")
    with pytest.warns(PconvgenWarning, match="in integers, computed in float32"):
        compiled = pconvgen.compile(tmp_path / "m.pt2")
    (decision,) = compiled.decisions
    assert decision.structure != "dense"
    assert decision.density < 0.4
    assert decision.reason.endswith("int8 in the model, computed in float32")
    found = list(compiled.run(x).values())
    for y, reference in zip(found, model(x), strict=True):
        assert y.dtype == str(reference.dtype)[6:]
    np.testing.assert_allclose(found[0], model(x)[0], 1e-5, 1e-5)
    # Sums in another order may fall on the other side of a half.
    assert np.abs(found[1].astype(int) - model(x)[1].numpy()).max() <= 1
