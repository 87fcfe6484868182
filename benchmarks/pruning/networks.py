"""Small networks, which CPUs train in seconds, of the kinds that papers on pruning report."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs)))


class SmallVgg(nn.Module):
    """Six 3x3 convolutions in three stages."""

    def __init__(self, inputs: int = 1, classes: int = 10, width: int = 24) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        self.convs = nn.ModuleList(_conv(i, o) for i, o in zip([inputs, *widths], widths, strict=False))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, conv in enumerate(self.convs):
            x = functional.relu(conv(x))
            if index in (1, 3):
                x = functional.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, stride=stride)
        self.second = _conv(outputs, outputs)
        self.shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and three residual blocks."""

    def __init__(self, inputs: int = 1, classes: int = 10, width: int = 24) -> None:
        super().__init__()
        self.stem = _conv(inputs, width)
        self.blocks = nn.Sequential(
            Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet-V2's block: 1x1 convolution to more channels, 3x3 depthwise, 1x1 back to fewer."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        middle = expand * inputs
        self.expand = _conv(inputs, middle, 1)
        self.depthwise = _conv(middle, middle, 3, stride, groups=middle)
        self.project = _conv(middle, outputs, 1)
        self.keeps = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = functional.relu6(self.depthwise(functional.relu6(self.expand(x))))
        found = self.project(found)
        return x + found if self.keeps else found


class SmallMobileNet(nn.Module):
    """A stem, five inverted residuals and a 1x1 convolution."""

    def __init__(self, inputs: int = 1, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.stem = _conv(inputs, width)
        self.blocks = nn.Sequential(
            Inverted(width, width, 1, expand=1),
            Inverted(width, 2 * width, 2),
            Inverted(2 * width, 2 * width, 1),
            Inverted(2 * width, 4 * width, 2),
            Inverted(4 * width, 4 * width, 1),
        )
        self.last = _conv(4 * width, 8 * width, 1)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu6(self.stem(x)))
        return self.head(functional.relu6(self.last(x)).mean((2, 3)))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vgg": SmallVgg,
    "resnet": SmallResNet,
    "mobilenet_v2": SmallMobileNet,
    "vgg, wider": partial(SmallVgg, width=32),
}
