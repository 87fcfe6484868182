"""GoogLeNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.blocks import Classifier, conv_norm, scaled


class InceptionBlock(nn.Module):
    """GoogLeNet's block: 1x1, 3x3, 5x5 and pooled branches side by side."""

    def __init__(self, in_channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.branch1 = conv_norm(in_channels, one, 1)
        self.branch2 = nn.Sequential(conv_norm(in_channels, three[0], 1), conv_norm(three[0], three[1], 3))
        self.branch3 = nn.Sequential(conv_norm(in_channels, five[0], 1), conv_norm(five[0], five[1], 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(in_channels, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def inception(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """GoogLeNet (Inception v1) with batch norm and average pooling between its last stages."""
    channels = scaled(64, width)
    layers: list[nn.Module] = [conv_norm(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1), conv_norm(channels, channels, 1)]
    out = scaled(192, width)
    layers += [conv_norm(channels, out), nn.MaxPool2d(3, 2, 1)]
    channels = out
    plan = (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (),
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    )
    for item in plan:
        if not item:
            layers.append(nn.AvgPool2d(3, 2, 1, count_include_pad=False))
            continue
        one, three0, three1, five0, five1, pooled = (scaled(value, width) for value in item)
        layers.append(InceptionBlock(channels, one, (three0, three1), (five0, five1), pooled))
        channels = one + three1 + five1 + pooled
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes)))
