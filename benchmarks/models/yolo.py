"""A detector like YOLOv5."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.blocks import conv_norm, scaled


class CrossStage(nn.Module):
    """YOLO's C3 block: residual bottlenecks on one half of the channels, the other half passes by."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.cv1 = conv_norm(in_channels, half, 1, activation=nn.SiLU)
        self.cv2 = conv_norm(in_channels, half, 1, activation=nn.SiLU)
        self.cv3 = conv_norm(2 * half, out_channels, 1, activation=nn.SiLU)
        self.m = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, 1, activation=nn.SiLU), conv_norm(half, half, activation=nn.SiLU))
            for _ in range(depth)
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv1(x)
        for bottleneck in self.m:
            out = out + bottleneck(out) if self.shortcut else bottleneck(out)
        return self.cv3(torch.cat([out, self.cv2(x)], 1))


class PooledPyramid(nn.Module):
    """YOLO's SPPF: three 5x5 max poolings in a row, all concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = conv_norm(channels, channels // 2, 1, activation=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.cv2 = conv_norm(2 * channels, channels, 1, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A detector like YOLOv5: CSP backbone, feature pyramid down and up again, a head at strides 8, 16 and 32."""

    def __init__(self, num_classes: int = 80, width: float = 0.5) -> None:
        super().__init__()
        one, two, three, four, five = (scaled(value, width) for value in (64, 128, 256, 512, 1024))

        def down(channels: int, out: int, kernel: int = 3) -> nn.Sequential:
            return conv_norm(channels, out, kernel, 2, activation=nn.SiLU)

        def narrow(channels: int, out: int) -> nn.Sequential:
            return conv_norm(channels, out, 1, activation=nn.SiLU)

        self.stem = nn.Sequential(down(3, one), down(one, two), CrossStage(two, two, 1))
        self.stage3 = nn.Sequential(down(two, three), CrossStage(three, three, 2))
        self.stage4 = nn.Sequential(down(three, four), CrossStage(four, four, 3))
        self.stage5 = nn.Sequential(down(four, five), CrossStage(five, five, 1), PooledPyramid(five))
        self.up5, self.merge4 = narrow(five, four), CrossStage(2 * four, four, 1, shortcut=False)
        self.up4, self.out3 = narrow(four, three), CrossStage(2 * three, three, 1, shortcut=False)
        self.down3, self.out4 = down(three, three), CrossStage(2 * three, four, 1, shortcut=False)
        self.down4, self.out5 = down(four, four), CrossStage(2 * four, five, 1, shortcut=False)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        anchors, values = 3, num_classes + 5
        self.heads = nn.ModuleList(nn.Conv2d(channels, anchors * values, 1) for channels in (three, four, five))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        three = self.stage3(self.stem(x))
        four = self.stage4(three)
        top5 = self.up5(self.stage5(four))
        top4 = self.up4(self.merge4(torch.cat([self.upsample(top5), four], 1)))
        fine = self.out3(torch.cat([self.upsample(top4), three], 1))
        medium = self.out4(torch.cat([self.down3(fine), top4], 1))
        coarse = self.out5(torch.cat([self.down4(medium), top5], 1))
        return self.heads[0](fine), self.heads[1](medium), self.heads[2](coarse)


def yolo(num_classes: int = 80, width: float = 0.5) -> nn.Module:
    """A YOLO-style detector, by default as large as YOLOv5-s; height and width are multiples of 32."""
    return Yolo(num_classes, width)
