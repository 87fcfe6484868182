"""Operators that TVM's importers get wrong or lack, and that the front ends repair: each against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenError
from tests.networks import TOLERANCE, relative_error

pytestmark = pytest.mark.host

F = nn.functional


class _Fn(nn.Module):
    """A convolution, and a function of what comes out of it."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


CASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "integer minus tensor": lambda x: 1 - x,
    "subtraction with a factor": lambda x: torch.sub(x, x.relu(), alpha=2),
    "addition with a factor": lambda x: torch.add(x, x.sigmoid(), alpha=0.5),
    "negative index": lambda x: x[:, -1],
    "list of negative indices": lambda x: x[:, [0, -2]],
    "upsampling by 1.5, nearest": lambda x: F.interpolate(x, scale_factor=1.5, mode="nearest"),
    "upsampling by 1.5, bilinear": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "upsampling with aligned corners": lambda x: F.interpolate(x, size=(13, 9), mode="bilinear", align_corners=True),
    "shrinking, nearest": lambda x: F.interpolate(x, size=(5, 4), mode="nearest"),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, (2, 4)),
    "largest along axes": lambda x: x.amax((2, 3)),
    "group norm without weights": lambda x: F.group_norm(x, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_torch(name: str) -> None:
    torch.manual_seed(0)
    compiled = pconvgen.compile(_Fn(CASES[name]), example=(torch.randn(1, 3, 8, 12),))
    assert relative_error(compiled) <= TOLERANCE


def test_an_image_without_a_batch() -> None:
    torch.manual_seed(0)
    compiled = pconvgen.compile(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), example=(torch.randn(3, 8, 12),))
    assert relative_error(compiled) <= TOLERANCE


def test_random_numbers_are_refused() -> None:
    with pytest.raises(PconvgenError, match="randn"):
        pconvgen.compile(_Fn(lambda x: x + torch.randn_like(x)), example=(torch.randn(1, 3, 8, 12),))
