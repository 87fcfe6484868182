"""Compact PyTorch definitions of the networks that the tests, the demo and the benchmarks compile.

Every factory takes `num_classes` and `width` (a multiplier of all channel counts), so the same definition is small in
a test and full size in a benchmark. Layer names follow torchvision where it has the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.blocks import conv_norm, scaled
from benchmarks.dense_prediction import unet, yolo


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        project = stride != 1 or in_channels != channels
        self.downsample = conv_norm(in_channels, channels, 1, stride, activation=None) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        project = stride != 1 or in_channels != out_channels
        self.downsample = conv_norm(in_channels, out_channels, 1, stride, activation=None) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """ResNet for 224x224 images, or with `small_stem` for 32x32 ones."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        width: float = 1.0,
        small_stem: bool = False,
    ) -> None:
        super().__init__()
        channels = scaled(64, width)
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, channels, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
        for stage, depth in enumerate(depths):
            planes = scaled(64 * 2**stage, width)
            blocks = []
            for index in range(depth):
                blocks.append(block(channels, planes, 2 if stage and index == 0 else 1))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def vgg16_bn(num_classes: int = 1000, width: float = 1.0, pool: int = 7, hidden: int = 4096) -> nn.Module:
    """VGG-16 with batch norm; `pool` and `hidden` size the classifier."""
    return Vgg16(num_classes, width, pool, hidden)


def resnet18(num_classes: int = 1000, width: float = 1.0, small_stem: bool = False) -> nn.Module:
    """ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, width, small_stem)


def resnet50(num_classes: int = 1000, width: float = 1.0, small_stem: bool = False) -> nn.Module:
    """ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, width, small_stem)


class Classifier(nn.Module):
    """Features, global average pooling, and a head of linear layers."""

    def __init__(self, features: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = head

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


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


class DenseLayer(nn.Module):
    """DenseNet's layer: batch norm before the convolution, output appended to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(out)))], 1)


def densenet(num_classes: int = 1000, width: float = 1.0, depths: Sequence[int] = (6, 12, 24, 16)) -> nn.Module:
    """DenseNet-121 by default."""
    channels, growth = scaled(64, width), scaled(32, width)
    layers: list[nn.Module] = [conv_norm(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        if stage + 1 < len(depths):
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(channels, num_classes)))


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


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    factory.__name__: factory
    for factory in (
        vgg16_bn,
        resnet18,
        resnet50,
        mobilenet_v1,
        mobilenet_v2,
        mobilenet_v3,
        squeezenet,
        inception,
        efficientnet_b0,
        unet,
        densenet,
        shufflenet,
        yolo,
    )
}


def randomize(model: nn.Module, seed: int = 0, resolution: int = 64) -> nn.Module:
    """Give `model` random weights and batch-norm statistics that fit them, and put it in evaluation mode; in place.

    The statistics are those of 16 random images of `resolution`, disturbed: no activation grows or vanishes with
    depth, and no batch norm is close to an identity.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.1, generator=generator)
        for norm in norms:
            norm.momentum = 1.0
            nn.init.uniform_(norm.weight, 0.7, 1.3, generator=generator)
            nn.init.normal_(norm.bias, std=0.2, generator=generator)
        model.train()
        model(torch.randn(16, 3, resolution, resolution, generator=generator))
        for norm in norms:
            norm.momentum = 0.1
            shape = norm.running_mean.shape
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(shape, generator=generator)
            norm.running_var *= 0.9 + 0.3 * torch.rand(shape, generator=generator)
    return model.eval()
