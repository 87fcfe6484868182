"""Networks in which more ways lead from the first operator to the last than anyone could walk: gates and residuals.

Where a walk forgets what it has seen, or an expression is written out, each join doubles the time.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import pconvgen
from pconvgen.frontend import load_model
from pconvgen.sparsify import Recipe, sparsify_file
from pconvgen.verify import verify

pytestmark = pytest.mark.host

JOINS = 80
EXAMPLE = torch.zeros(1, 4, 6, 6)
ENDLESS = 240
"""Seconds after which it is no longer a busy machine; it takes a few, or for ever if each join doubles it."""


class Joins(nn.Module):
    """Gates and residuals, then a product of two activations and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for _ in range(JOINS // 2):
            x = functional.silu(x)
            x = x + x.tanh() / 2
        return self.last(x @ (x * 0.5).transpose(2, 3))


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """Fails a test that would go on for ever."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"still running after {ENDLESS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(ENDLESS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_each_value_is_looked_at_once(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, model = tmp_path / f"joins{suffix}", Joins().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == ".pt2":
            torch.export.save(torch.export.export(model, (EXAMPLE,)), path)
        else:
            torch.onnx.export(model, (EXAMPLE,), str(path), dynamo=False)
    rows = sparsify_file(path, tmp_path / f"pruned{suffix}", Recipe("unstructured", 0.5, ("first",)))
    assert [row.name for row in rows] == ["first", "last"]
    imported = load_model(path)
    # ONNX's MatMul is no layer: its second operand is an activation, made with the weight of `first`.
    assert "first" not in [imported.layer_names[name] for name in imported.layer_names if "MatMul" in name]
    compiled = pconvgen.compile(imported)
    assert [decision.name for decision in compiled.decisions] == ["first", "last"]
    assert verify(compiled, seeds=(0,)).passed
