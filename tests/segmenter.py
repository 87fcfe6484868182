"""A small network that scales up by transposed convolutions and down by pooling."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pconvgen.sparsify import sparsify


def bilinear(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Upsampling by a fixed kernel for each channel, as fully convolutional networks begin with."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False)
    ramp = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    layer.weight.data[:] = torch.from_numpy(np.outer(ramp, ramp))
    return layer


class Segmenter(nn.Module):
    """A U-Net whose decoder has kernels of 2, 3 and 4, and a head that is upsampled by a bilinear kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.down3 = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.Sigmoid())
        self.up3 = nn.Sequential(nn.ConvTranspose2d(32, 32, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.up2 = nn.Sequential(nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1), nn.ReLU6())
        self.up1 = nn.Sequential(nn.ConvTranspose2d(32, 8, 4, 2, 1, groups=2), nn.LeakyReLU(0.1))
        self.head = nn.ConvTranspose2d(8, 5, 3, padding=1)
        self.whole = bilinear(5, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one = self.down1(image)
        two = self.down2(one)
        three = self.down3(two)
        three = three * self.gate(three)
        up = self.up2(self.up3(three) + two)
        return self.whole(self.head(self.up1(torch.cat([up, one], 1))))


UPS = {"up3.0": (32, 32, 2, 2), "up2.0": (32, 16, 3, 3), "up1.0": (32, 4, 4, 4), "head": (8, 5, 3, 3)}
SHAPE = (2, 3, 24, 40)


def segmenter(structure: str | None) -> nn.Module:
    torch.manual_seed(0)
    model = Segmenter().eval()
    model.up3[1].running_mean = torch.randn(32)
    if structure is not None:
        densities = sparsify(model, structure, 0.3)
        assert all(densities[name] < 0.6 for name in UPS if (name, structure) != ("head", "block_punched"))
    return model
