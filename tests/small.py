"""Networks that compile in a second, for the tests of the command line."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    """A layer of each kind: convolution, depthwise, 1x1, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 8, 1)
        self.hidden = nn.Linear(8, 16)
        self.classes = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.wide(self.stem(image).relu()).relu()).relu()
        return self.classes(self.hidden(self.point(x).mean((2, 3))).relu())


class Two(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.fc(left), "difference": left - right}


SHAPE = (1, 3, 8, 8)


def small() -> nn.Module:
    """The small network with the same weights each time."""
    torch.manual_seed(0)
    return Small().eval()
