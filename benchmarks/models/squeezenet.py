"""SqueezeNet 1.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.blocks import Classifier, scaled


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)


def squeezenet(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """SqueezeNet 1.1: no batch norm, ceiling pooling, a convolution as classifier."""
    channels = scaled(64, width)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2), nn.ReLU(inplace=True)]
    plan = ((), (16, 64), (16, 64), (), (32, 128), (32, 128), (), (48, 192), (48, 192), (64, 256), (64, 256))
    for item in plan:
        if not item:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            continue
        squeeze, expand = (scaled(value, width) for value in item)
        layers.append(Fire(channels, squeeze, expand))
        channels = 2 * expand
    layers += [nn.Dropout(), nn.Conv2d(channels, num_classes, 1), nn.ReLU(inplace=True)]
    return Classifier(nn.Sequential(*layers), nn.Sequential())
