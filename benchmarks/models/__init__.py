"""Compact PyTorch definitions of the networks that the tests, the demo and the benchmarks compile.

Every factory takes `num_classes` and `width` (a multiplier of all channel counts), so the same definition is small in
a test and full size in a benchmark. Layer names follow torchvision where it has the network.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from benchmarks.models.densenet import densenet
from benchmarks.models.inception import inception
from benchmarks.models.mobilenet import efficientnet_b0, mobilenet_v1, mobilenet_v2, mobilenet_v3
from benchmarks.models.resnet import resnet18, resnet50
from benchmarks.models.shufflenet import shufflenet
from benchmarks.models.squeezenet import squeezenet
from benchmarks.models.unet import unet
from benchmarks.models.vgg import vgg16_bn
from benchmarks.models.yolo import yolo

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
