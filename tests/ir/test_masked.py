"""A model that is pruned in memory is the one that is pruned as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pconvgen.compiler import decide, lower
from pconvgen.frontend import load_model
from pconvgen.sparsify import Recipe, sparsify_file
from pconvgen.targets.presets import get_target
from pconvgen.whatif import networks as looking
from pconvgen.whatif.masked import masked
from pconvgen.whatif.networks import whatif

TARGET = get_target("cortex-a76")


class Network(nn.Module):
    """Layers of all kinds, batch norm before and behind, a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2, groups=2)
        self.middle = nn.Linear(8 * 16 * 16, 32)
        self.last = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.shared(self.first(x)).relu())
        x = self.up(self.depthwise(self.grouped(self.norm(x)).relu())).relu()
        return self.last(self.middle(x.flatten(1)).relu())


@pytest.fixture(scope="module", params=["pt2", "onnx"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Network().eval()
    for norm in (network.first[1], network.norm):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("models") / f"m.{request.param}"
    program = torch.export.export(network, (torch.zeros(1, 3, 8, 8),))
    if request.param == "pt2":
        torch.export.save(program, path)
    else:
        torch.onnx.export(program, (), path, dynamo=True)
    return path


@pytest.mark.parametrize("structure", ["simd_block", "pattern", "unstructured", "filter"])
def test_whatif_decides_as_for_a_pruned_file(
    model: Path, structure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "sparsify_file", None)  # everything can be pruned in memory
    points = whatif(model, structure, [0.3, 0.1], TARGET.name)
    assert points[0].layers == lower(load_model(model), TARGET)[1]
    for point in points[1:]:
        path = tmp_path / f"pruned{model.suffix}"
        sparsify_file(model, path, Recipe(structure, point.density))
        assert point.layers == lower(load_model(path), TARGET)[1]


def test_a_weight_that_is_another_one_by_now_is_pruned_as_a_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "masked", lambda *_: None)
    (_, point) = whatif(model, "simd_block", [0.3], TARGET.name)
    sparsify_file(model, tmp_path / f"pruned{model.suffix}", Recipe("simd_block", 0.3))
    assert point.layers == lower(load_model(tmp_path / f"pruned{model.suffix}"), TARGET)[1]


def test_masks_that_do_not_fit_are_refused(model: Path) -> None:
    imported = load_model(model)
    (name,) = [layer for layer in set(imported.layer_names.values()) if "grouped" in layer]
    assert masked(imported, [(name, np.ones((16, 4, 3, 3), bool))]) is not None
    assert masked(imported, [(name, np.ones((16, 16, 3, 3), bool))]) is None
    assert masked(imported, [("nothing", np.ones((16, 4, 3, 3), bool))]) is None
    assert masked(imported, [("shared", np.ones((16, 16, 3, 3), bool))]) is None, "it is used twice"


def test_deciding_is_lowering_without_kernels(model: Path) -> None:
    imported = load_model(model)
    assert decide(imported, TARGET) == lower(imported, TARGET)[1]
