"""How long a projection of ADMM takes."""

from __future__ import annotations

import time

import torch
from torch import nn

from pconvgen.pruning import ADMMPruner, Density, Macs


class Large(nn.Module):
    """25.7 million weights, of 3x3 and 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 512, 3)
        self.wide = nn.Sequential(*(nn.Conv2d(512, 512, 3, padding=1) for _ in range(8)))
        self.deep = nn.Sequential(nn.Conv2d(512, 1024, 1), *(nn.Conv2d(1024, 1024, 1) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deep(self.wide(self.stem(x)))


def projections() -> dict[str, float]:
    """Seconds of an ADMM step of a large network, for each structure and kind of allocation; the best of three."""
    model, found = Large(), {}
    for structure in ("pattern", "simd_block", "block_punched", "unstructured", "filter"):
        for name, budget in (("uniform", Density(0.125)), ("allocated", Macs(2e8))):
            pruner = ADMMPruner(model, (torch.zeros(1, 3, 6, 6),), structure, budget)
            pruner.penalty()
            times = []
            for epoch in range(3):
                started = time.perf_counter()
                pruner.step(epoch)
                times.append(time.perf_counter() - started)
            found[f"{structure}, {name}"] = min(times)
    return found
