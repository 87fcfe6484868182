"""Layers with large kernels and strides, such as patch embeddings, compute what PyTorch computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.frontend import load_model
from tests.networks import TOLERANCE, relative_error

pytestmark = pytest.mark.host

# (kernel, stride, padding)
CASES = [
    (7, 7, 0),
    (12, 12, 0),
    (16, 16, 0),
    (32, 32, 0),
    (16, (16, 12), 3),
    ((12, 7), (5, 9), (2, 5)),
    ((32, 5), (16, 5), (16, 0)),
    ((9, 14), (14, 9), (1, 13)),
]


@pytest.mark.parametrize("density", [1, 0.25])
@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES, ids=str)
def test_large_strides(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], density: float
) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 32, kernel, stride, padding).eval()
    with torch.no_grad():
        model.weight *= torch.rand_like(model.weight) < density
    assert relative_error(pconvgen.compile(load_model(model, example=(torch.zeros(1, 3, 96, 96),)))) <= TOLERANCE
