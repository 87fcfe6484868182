"""ShuffleNet v2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.blocks import Classifier, conv_norm, scaled


class ShuffleUnit(nn.Module):
    """ShuffleNet v2's unit: split, convolve one half, concatenate, shuffle; group convolution in the 1x1 layers."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int = 2) -> None:
        super().__init__()
        self.stride = stride
        half = out_channels // 2
        source = in_channels if stride == 2 else in_channels // 2
        self.branch2 = nn.Sequential(
            conv_norm(source, half, 1, groups=groups),
            conv_norm(half, half, 3, stride, groups=half, activation=None),
            conv_norm(half, half, 1),
        )
        self.branch1 = nn.Sequential(
            conv_norm(source, source, 3, 2, groups=source, activation=None), conv_norm(source, half, 1)
        )
        if stride == 1:
            self.branch1 = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        out = torch.cat([self.branch1(left), self.branch2(right)], 1)
        batch, channels, height, width = out.shape
        out = out.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return out.view(batch, channels, height, width)


def shufflenet(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """ShuffleNet v2 with group convolutions: split, concatenation, channel shuffle."""
    channels, last = scaled(24, width), scaled(1024, width)
    layers: list[nn.Module] = [conv_norm(3, channels, stride=2), nn.MaxPool2d(3, 2, 1)]
    for item, repeat in ((128, 4), (256, 8), (512, 4)):
        out = scaled(item, width)
        for index in range(repeat):
            layers.append(ShuffleUnit(channels, out, 2 if index == 0 else 1))
            channels = out
    layers.append(conv_norm(channels, last, 1))
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(last, num_classes)))
