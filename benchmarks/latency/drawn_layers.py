"""Layers of any size, drawn by chance: a model of latency learns from them what is between the layers of networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pconvgen.calibration.layers import CHANNELS, DENSITIES, pruned
from pconvgen.calibration.layers import SIZES as CALIBRATED

SIZES = (*CALIBRATED, 160, 224)
KINDS = ("3x3", "3x3", "3x3, stride 2", "1x1", "1x1", "depthwise", "linear")
STRUCTURES_DRAWN = ("dense", "pattern", "simd_block", "simd_block", "unstructured", "block_punched")
ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU, nn.SiLU, nn.Identity)
MOST_MACS, MOST_INPUTS = 1.2e9, 4e6
"""Surviving multiply-accumulates, and elements of the input, of a layer at most."""


class DrawnLayers(nn.Module):
    """Layers side by side, each with an input of its own."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.layers = nn.ModuleList()
        self.inputs: list[torch.Tensor] = []
        while len(self.layers) < count:
            kind = KINDS[rng.integers(len(KINDS))]
            channels, filters = (int(rng.choice(CHANNELS)) for _ in range(2))
            size, density = int(rng.choice(SIZES)), float(rng.choice(DENSITIES))
            structure = STRUCTURES_DRAWN[rng.integers(len(STRUCTURES_DRAWN))]
            layer: nn.Module
            if kind == "linear":
                layer, data = nn.Linear(8 * channels, 8 * filters), torch.zeros(1, 8 * channels)
            else:
                taps, stride = (1, 1) if kind == "1x1" else (3, 2 if "stride" in kind else 1)
                groups = channels if kind == "depthwise" else 1
                filters = channels if kind == "depthwise" else filters
                layer = nn.Conv2d(channels, filters, taps, stride, taps // 2, groups=groups)
                data = torch.zeros(1, channels, size, size)
            kept = _prune(layer, structure, density)
            if data.numel() <= MOST_INPUTS and kept * (size**2 if kind != "linear" else 1) <= MOST_MACS:
                self.layers.append(nn.Sequential(layer, ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()))
                self.inputs.append(data)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The layers' outputs."""
        return tuple(layer(data) for layer, data in zip(self.layers, inputs, strict=True))


def _prune(layer: nn.Module, structure: str, density: float) -> int:
    """Prunes a layer to a structure that applies; the weights that are left."""
    weight = layer.weight.detach().numpy()  # type: ignore[union-attr, operator]
    linear = isinstance(layer, nn.Linear)
    shaped = weight[:, :, None, None] if linear else weight
    groups = 1 if linear else layer.groups
    if shaped.shape[1] > 1:
        shaped = pruned(shaped, "linear" if linear else "conv2d", groups, structure, density)
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(shaped.reshape(weight.shape)))  # type: ignore[union-attr]
    return int(np.count_nonzero(shaped))
