"""Every way to normalise in PyTorch, side by side, and how far from exact numbers is right."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

MOMENTS = ((0, 1), (1000, 1), (1000, 0.1), (1e5, 10), (12.3, 0))
"""Means and deviations of data; the last is a plane of one number."""


def by_hand(x: torch.Tensor, axes: int | tuple[int, ...]) -> torch.Tensor:
    """Norms as many write them, and as exporters spell them out."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.pow(2).mean(axes, keepdim=True) + 1e-6).sqrt()


class Norms(nn.Module):
    """Of images, of rows, of volumes and of sequences; between layers, and the statistics themselves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch = nn.BatchNorm2d(6, track_running_stats=False)
        self.row_batch = nn.BatchNorm1d(6, track_running_stats=False)
        self.instance = nn.InstanceNorm2d(6, affine=True)
        self.running = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
        self.group = nn.GroupNorm(3, 6)
        self.layer = nn.LayerNorm([5, 7])
        self.square = nn.RMSNorm(7)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        for parameter in self.parameters():
            nn.init.normal_(parameter)
        nn.init.uniform_(self.running.running_mean)
        nn.init.uniform_(self.running.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, channels_last = x.flatten(2), x.permute(0, 2, 3, 1)
        variances, means = torch.var_mean(x, (1, 2), keepdim=True)
        _, row_means, row_deviations = torch.native_layer_norm(x, [5, 7], None, None, 1e-5)
        _, group_means, _ = torch.native_group_norm(x, None, None, x.shape[0], 6, 35, 2, 1e-5)
        long = x.reshape(2, 1, -1).repeat(1, 1, 9)
        return {
            "by hand": by_hand(x, 1),
            "planes by hand": by_hand(x, (2, 3)),
            "long rows by hand": by_hand(long, -1),
            "long columns by hand": by_hand(long.mT, 1),
            "batch": self.batch(x).relu(),
            "batch of rows": self.row_batch(rows),
            "instance": self.instance(x),
            "instance of rows": functional.instance_norm(rows, eps=0.1),
            "instance of volumes": functional.instance_norm(x[:, :, None]),
            "running": self.running(x),
            "group": functional.silu(self.group(x)),
            "group of rows": self.group(rows),
            "group of volumes": functional.group_norm(x[:, :, None], 2),
            "pixel": functional.group_norm(x[:, :, :1, :1], 6),
            "layer": self.layer(x),
            "layer of rows": functional.layer_norm(x, [7]),
            "layer of images": functional.layer_norm(x, [6, 5, 7]),
            "layer of channels": functional.layer_norm(channels_last, [6]).permute(0, 3, 1, 2),
            "root mean square": self.square(x),
            "between layers": self.conv(self.group(self.conv(self.instance(self.conv(x)).relu()))),
            "variance": x.var((2, 3)),
            "variance of all": x.var(),
            "biased variance": x.var((0, 2), correction=0),
            "unbiased": x.var(-1, unbiased=False),
            "deviation": x.std(1),
            "deviation of all": x.std().reshape(1),
            "deviation and mean": torch.cat(torch.std_mean(x, 3), 1),
            "variances": variances,
            "means": means,
            "row means": row_means,
            "row deviations": row_deviations,
            "group means": group_means,
        }


class Between(nn.Module):
    """Norms between convolutions, which want their input in planes of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU()),
            *(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()),
            *(nn.Conv2d(8, 8, 5, padding=2), nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU()),
            nn.Conv2d(8, 8, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def data(mean: float, deviation: float, seed: int = 0) -> NDArray[np.float32]:
    """An input of `Norms`."""
    numbers = np.random.default_rng(seed).standard_normal((2, 6, 5, 7))
    return (numbers * deviation + mean).astype(np.float32)


def far_off(model: Norms, x: NDArray[np.float32], found: dict[str, NDArray[np.float32]], times: float = 3) -> list[str]:
    """Outputs that are further from exact numbers than `times` PyTorch's in float32, and what rounding explains."""
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(torch.from_numpy(x).double())
        single = model(torch.from_numpy(x))
    wrong = []
    for name, expected in exact.items():
        limit = times * float((single[name] - expected).abs().max()) + 1e-6 * max(1.0, float(expected.abs().max()))
        # A NaN is no less than any limit.
        if not np.abs(found[name] - expected.numpy()).max() <= limit:
            wrong.append(name)
    return wrong
