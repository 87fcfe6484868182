"""MobileNets and EfficientNet: depthwise convolutions between 1x1 ones, from version 2 on with residuals."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.blocks import Classifier, conv_norm, scaled


class SqueezeExcite(nn.Module):
    """Channel attention: global pool, two 1x1 convolutions, gate."""

    def __init__(self, channels: int, squeeze: int, activation: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, optional squeeze-excite, linear 1x1 projection."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(conv_norm(in_channels, hidden, 1, activation=activation))
        layers.append(conv_norm(hidden, hidden, kernel, stride, groups=hidden, activation=activation))
        if attention is not None:
            layers.append(attention)
        layers.append(conv_norm(hidden, out_channels, 1, activation=None))
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def mobilenet_v1(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """MobileNet v1: depthwise separable convolutions."""
    channels = scaled(32, width)
    layers: list[nn.Module] = [conv_norm(3, channels, stride=2)]
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for item, stride in plan:
        out = scaled(item, width)
        layers += [conv_norm(channels, channels, 3, stride, groups=channels), conv_norm(channels, out, 1)]
        channels = out
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(channels, num_classes)))


def mobilenet_v2(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """MobileNet v2: inverted residuals with ReLU6."""
    channels, last = scaled(32, width), scaled(1280, max(width, 0.25))
    layers: list[nn.Module] = [conv_norm(3, channels, stride=2, activation=nn.ReLU6)]
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, item, repeat, stride in plan:
        for index in range(repeat):
            out = scaled(item, width)
            layers.append(InvertedResidual(channels, channels * expand, out, 3, stride if index == 0 else 1, nn.ReLU6))
            channels = out
    layers.append(conv_norm(channels, last, 1, activation=nn.ReLU6))
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes)))


def mobilenet_v3(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """MobileNet v3 small: hard-swish, squeeze-excite with a hard sigmoid."""
    channels = scaled(16, width)
    layers: list[nn.Module] = [conv_norm(3, channels, stride=2, activation=nn.Hardswish)]
    plan = (
        (3, 16, 16, True, nn.ReLU, 2),
        (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1),
        (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    )
    for kernel, expand, item, attend, activation, stride in plan:
        hidden, out = scaled(expand, width), scaled(item, width)
        attention = SqueezeExcite(hidden, scaled(hidden, 0.25), nn.ReLU, nn.Hardsigmoid) if attend else None
        layers.append(InvertedResidual(channels, hidden, out, kernel, stride, activation, attention))
        channels = out
    last, hidden = scaled(576, width), scaled(1024, width)
    layers.append(conv_norm(channels, last, 1, activation=nn.Hardswish))
    head = nn.Sequential(nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, num_classes))
    return Classifier(nn.Sequential(*layers), head)


def efficientnet_b0(num_classes: int = 1000, width: float = 1.0) -> nn.Module:
    """EfficientNet-B0: SiLU, squeeze-excite with a sigmoid."""
    channels, last = scaled(32, width), scaled(1280, width)
    layers: list[nn.Module] = [conv_norm(3, channels, stride=2, activation=nn.SiLU)]
    plan = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )
    for expand, kernel, stride, item, repeat in plan:
        out = scaled(item, width)
        for index in range(repeat):
            hidden = channels * expand
            attention = SqueezeExcite(hidden, max(1, channels // 4), nn.SiLU, nn.Sigmoid)
            step = stride if index == 0 else 1
            layers.append(InvertedResidual(channels, hidden, out, kernel, step, nn.SiLU, attention))
            channels = out
    layers.append(conv_norm(channels, last, 1, activation=nn.SiLU))
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes)))
