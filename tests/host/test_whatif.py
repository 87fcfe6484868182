"""What a network would take at other densities."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from pconvgen.devices import get_device
from pconvgen.errors import UsageError
from pconvgen.values.decision import Decision
from pconvgen.whatif.networks import Point, outlooks, whatif

pytestmark = pytest.mark.host


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 32, 32),)), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_fewer_weights_are_predicted_to_be_faster(model: Path) -> None:
    points = whatif(model, "simd_block", [0.1, 0.5, 0.25])
    assert [point.density for point in points] == [1.0, 0.5, 0.25, 0.1]
    # Where times are known, schedules are chosen by them and not by cycles.
    costs = [point.total_cycles if point.total_ms is None else point.total_ms for point in points]
    assert all(after < 1.02 * before for before, after in pairwise(costs))
    assert costs[-1] < 0.7 * costs[0]
    found = {layer.name: layer for layer in outlooks(points)}
    assert found["2"].worth
    assert found["4"].worth
    assert not found["0"].worth, "the first layer is not pruned"
    assert found["2"].even is not None


def test_whole_networks_can_be_measured(model: Path) -> None:
    points = whatif(model, "pattern", [0.25], device=get_device("local"))
    assert all(point.measured_ms == point.total_ms and point.measured_ms for point in points)


def test_arm_has_estimates_of_cycles_only(model: Path) -> None:
    points = whatif(model, "simd_block", [0.25], "cortex-a76")
    assert [point.total_ms for point in points] == [None, None]
    assert points[0].total_cycles > points[1].total_cycles > 0


def test_where_pruning_begins_to_pay_lies_between_what_was_looked_at() -> None:
    def point(density: float, cycles: float) -> Point:
        return Point(density, (Decision("a", "conv2d", (1,), 1, "x", density, "y", "", predicted_cycles=cycles),))

    (found,) = outlooks([point(1.0, 100.0), point(0.5, 120.0), point(0.25, 80.0)])
    assert found.even == pytest.approx(0.375)
    assert found.worth
    (never,) = outlooks([point(1.0, 100.0), point(0.5, 120.0)])
    assert never.even is None
    assert not never.worth


def test_nothing_to_ask(model: Path) -> None:
    with pytest.raises(UsageError, match="no density"):
        whatif(model, "pattern", [])
    with pytest.raises(UsageError, match="out of range"):
        whatif(model, "pattern", [2.0])


def test_the_command_line(model: Path, tmp_path: Path) -> None:
    words = ["whatif", str(model), "--structure", "simd_block", "--density", "0.5,0.25"]
    files = ["--json", str(tmp_path / "w.json"), "--plot", str(tmp_path / "w.png")]
    done = subprocess.run(
        [sys.executable, "-m", "pconvgen", *words, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not worth pruning with simd_block: 0" in done.stdout
    points = json.loads((tmp_path / "w.json").read_text())["points"]
    assert [point["density"] for point in points] == [1.0, 0.5, 0.25]
    assert all(point["total_cycles"] > 0 and len(point["layers"]) == 4 for point in points)
    assert ("nothing was learned of host" in done.stdout) == (points[0]["total_ms"] is None)
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    wrong = subprocess.run(
        [sys.executable, "-m", "pconvgen", *words[:-1], "half"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, "--density does not parse" in wrong.stderr) == (2, True)
