"""Operators and layers whose outputs PyTorch makes NaN or infinite where an input is, and an input that has both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp below": lambda x: x.clamp(min=-1),
    "clamp above": lambda x: x.clamp(max=1),
    "clamp by tensors": lambda x: torch.clamp(x, x.flip(0), x.flip(1)),
    "elu": functional.elu,
    "celu": functional.celu,
    "selu": functional.selu,
    "hard swish": functional.hardswish,
    "hard sigmoid": functional.hardsigmoid,
    "leaky relu": lambda x: functional.leaky_relu(x, 0.1),
    "leaky relu, steep": lambda x: functional.leaky_relu(x, 2.0),
    "leaky relu, no slope": lambda x: functional.leaky_relu(x, 0.0),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.2])),
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": functional.softplus,
    "soft shrinkage": functional.softshrink,
    "hard shrinkage": functional.hardshrink,
    "threshold": lambda x: functional.threshold(x, 0.1, 20.0),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "minimum of functions": lambda x: torch.minimum(torch.sigmoid(x), torch.sigmoid(x.flip(0)) * 0.5),
    "times zero": lambda x: x * 0,
    "difference": lambda x: x - x,
    "largest of rows": lambda x: x.amax(-1),
    "smallest of rows": lambda x: x.amin(-1),
    "largest of columns": lambda x: x.amax(0),
    "largest": torch.max,
    "smallest": torch.min,
    "max along": lambda x: x.max(-1)[0],
    "index of max along": lambda x: x.max(0)[1],
    "min along": lambda x: x.min(-1, keepdim=True)[0],
    "argmax of rows": lambda x: x.argmax(-1),
    "argmin of rows": lambda x: x.argmin(-1, keepdim=True),
    "argmax of columns": lambda x: x.argmax(0),
    "argmax": torch.argmax,
    "is not itself": lambda x: (x != x).float(),
    "is itself": lambda x: (x == x).float(),
    "softmax of rows": lambda x: torch.softmax(x, -1),
    "softmax of columns": lambda x: torch.softmax(x, 0),
    "logarithm of softmax": lambda x: torch.log_softmax(x, -1),
    "unit vectors": lambda x: functional.normalize(x, dim=-1),
}


def table() -> Tensor:
    """Rows with NaN first, in the middle and last; of infinities, of NaN, of both."""
    x = torch.randn(9, 49, generator=torch.Generator().manual_seed(0)) * 3
    x[0, 3] = x[1, 0] = x[1, 48] = x[6, 30] = x[7, 31] = np.nan
    x[2, 5] = x[6, 20] = np.inf
    x[2, 40] = x[7, 30] = -np.inf
    x[3], x[4], x[5] = -np.inf, np.inf, np.nan
    return x


class Functions(nn.Module):
    """Several functions of one tensor."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions)


class Layers(nn.Module):
    """Kinds of layers side by side, each with a window of its own; none has a weight of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "3x3": nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU6()),
                "stride 2": nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()),
                "5x5": nn.Conv2d(8, 5, 5, padding=2),
                "dilated": nn.Conv2d(8, 9, 3, padding=2, dilation=2),
                "depthwise": nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()),
                "depthwise, stride 2": nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2, groups=8), nn.LeakyReLU(0.1)),
                "groups": nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.Hardtanh(-0.5, 0.5)),
                "1x1": nn.Sequential(nn.Conv2d(8, 20, 1), nn.ReLU(), nn.Conv2d(20, 4, 1), nn.Hardsigmoid()),
                "transposed": nn.Sequential(nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), nn.ReLU()),
                "transposed, stride 3": nn.ConvTranspose2d(8, 4, 2, 3),
                "pool": nn.MaxPool2d(3, 2, 1),
                "pool of pairs": nn.MaxPool2d(2),
                "pool, overlapping": nn.MaxPool2d(5, 1, 2),
                "pool, dilated": nn.MaxPool2d(3, 1, 1, 2),
                "mean": nn.AvgPool2d(3, 2, 1),
                "largest": nn.AdaptiveMaxPool2d(1),
                "adaptive": nn.AdaptiveMaxPool2d((6, 5)),
                "global mean": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7), nn.ReLU()),
                "pool of rows": nn.Sequential(nn.Flatten(2), nn.MaxPool1d(5, 3, 2)),
                "pool of volumes": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.MaxPool3d(3, 2, 1)),
                "nearest": nn.Upsample(scale_factor=2),
                "padded": nn.Sequential(nn.ConstantPad2d(1, -np.inf), nn.MaxPool2d(3, 2)),
                "normed": nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()),
                "rows": nn.Sequential(nn.Linear(20, 6), nn.ReLU()),
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: layer(x) for name, layer in self.layers.items()}


def images() -> Tensor:
    """An image with NaN and infinities in a few pixels, one of minus infinities, and one of numbers."""
    x = torch.randn(3, 8, 24, 20, generator=torch.Generator().manual_seed(1))
    x[0, 3, 7, 11] = x[0, 0, 0, 19] = x[0, 5, 23, 0] = np.nan
    x[0, 2, 15, 4] = np.inf
    x[0, 6, 18, 12] = -np.inf
    x[1] = -np.inf
    return x


def difference(found: np.ndarray, expected: Tensor) -> str | None:
    """What differs: a shape, what is NaN or infinite, or a number by more than rounding."""
    theirs = expected.detach().numpy()
    if found.shape != theirs.shape:
        return f"shape {found.shape}, not {theirs.shape}"
    wrong = ~np.isclose(found, theirs, 1e-4, 1e-4, equal_nan=True)
    places = [tuple(map(int, place)) for place in np.argwhere(wrong)[:3]]
    told = ", ".join(f"{found[place]} at {place}, not {theirs[place]}" for place in places)
    return f"{wrong.sum()} of {wrong.size}: {told}" if wrong.any() else None
