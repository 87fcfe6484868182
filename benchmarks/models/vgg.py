"""VGG-16 with batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.blocks import scaled


class Vgg16(nn.Module):
    """VGG-16 with batch norm; its convolutions have a bias."""

    def __init__(self, num_classes: int = 1000, width: float = 1.0, pool: int = 7, hidden: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if item == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            out = scaled(item, width)
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(pool)
        self.classifier = nn.Sequential(
            nn.Linear(channels * pool * pool, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg16_bn(num_classes: int = 1000, width: float = 1.0, pool: int = 7, hidden: int = 4096) -> nn.Module:
    """VGG-16 with batch norm; `pool` and `hidden` size the classifier."""
    return Vgg16(num_classes, width, pool, hidden)
