"""Normalisation does not cancel: means that are large beside the spread, planes of one number, one pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenError
from pconvgen.frontend import load_model
from pconvgen.verify import TOLERANCE_STORED_HALF, verify
from tests.normalising import MOMENTS, Between, Norms, data, far_off

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def norms() -> tuple[Norms, Any]:
    model = Norms().eval()
    return model, pconvgen.compile(model, example=(torch.from_numpy(data(0, 1)),))


@pytest.mark.parametrize(("mean", "deviation"), MOMENTS)
def test_errors_are_no_more_than_pytorchs(norms: tuple[Norms, Any], mean: float, deviation: float) -> None:
    model, compiled = norms
    x = data(mean, deviation)
    assert not far_off(model, x, compiled.run(x))


@pytest.mark.parametrize("size", [(1, 3, 37, 41), (3, 3, 14, 14)])
def test_norms_read_and_write_planes(size: tuple[int, ...]) -> None:
    compiled = pconvgen.compile(Between().eval(), example=(torch.zeros(size),))
    assert verify(compiled, seeds=(0,)).max_relative_error < 1e-5


def test_float16_is_summed_in_float32() -> None:
    """65504 is the largest float16: sums of squares would be infinite."""
    model = load_model(Between().eval(), example=(torch.zeros(1, 3, 96, 96),))
    x = np.random.default_rng(0).standard_normal((1, 3, 96, 96), np.float32) * 300
    expected = next(iter(model.reference({model.inputs[0].name: x}).values()))
    compiled = pconvgen.compile(model, dtype="float16", accumulate="float32")
    found = next(iter(compiled.run(x).values()))
    assert np.abs(found - expected).max() <= TOLERANCE_STORED_HALF * np.abs(expected).max()


class Half(nn.Module):
    """Norms of what was converted to float16."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        half, norms = x.half(), nn.functional
        results = (
            *(norms.group_norm(half, 4), norms.instance_norm(half), norms.layer_norm(half, [11])),
            *(half.var((2, 3)), half.std(1), half - half.mean(1, keepdim=True)),
        )
        return tuple(result.float() for result in results)


def test_norms_of_float16_inside() -> None:
    torch.manual_seed(0)
    compiled = pconvgen.compile(Half().eval(), example=(torch.randn(1, 8, 9, 11),))
    assert verify(compiled, seeds=(0,)).max_relative_error < 2e-3


def test_a_batch_norm_in_training_mode_is_refused() -> None:
    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)

    with pytest.raises(PconvgenError, match=r"exported in training mode.*model\.eval"):
        pconvgen.compile(Training().eval(), example=(torch.zeros(2, 3, 4, 4),))
