"""U-Net, which says something about every place of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.blocks import conv_norm, scaled


class UNet(nn.Module):
    """U-Net of depth three: a transposed convolution (with batch norm), a bilinear and a nearest upsampling."""

    def __init__(self, num_classes: int = 2, width: float = 1.0) -> None:
        super().__init__()
        one, two, three, four = (scaled(value, width) for value in (64, 128, 256, 512))
        self.pool = nn.MaxPool2d(2)
        self.down1 = nn.Sequential(conv_norm(3, one), conv_norm(one, one))
        self.down2 = nn.Sequential(conv_norm(one, two), conv_norm(two, two))
        self.down3 = nn.Sequential(conv_norm(two, three), conv_norm(three, three))
        self.bottom = nn.Sequential(conv_norm(three, four), conv_norm(four, four))
        self.up3 = nn.ConvTranspose2d(four, three, 2, 2)
        self.norm3 = nn.BatchNorm2d(three)
        self.merge3 = conv_norm(2 * three, three)
        self.merge2 = conv_norm(three + two, two)
        self.merge1 = conv_norm(two + one, one)
        self.head = nn.Conv2d(one, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        one = self.down1(image)
        two = self.down2(self.pool(one))
        three = self.down3(self.pool(two))
        out = self.norm3(self.up3(self.bottom(self.pool(three))))
        out = self.merge3(torch.cat([out, three], 1))
        out = functional.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False)
        out = self.merge2(torch.cat([out, two], 1))
        out = functional.interpolate(out, scale_factor=2, mode="nearest")
        return self.head(self.merge1(torch.cat([out, one], 1)))


def unet(num_classes: int = 2, width: float = 1.0) -> nn.Module:
    """U-Net; the input's height and width are multiples of 8."""
    return UNet(num_classes, width)
