"""Models of all kinds of layers that pruners have to cope with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Mixed(nn.Module):
    """Residual and concatenation, grouped, depthwise, 1x1, 5x5, transposed and linear layers, and a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.pointwise = nn.Conv2d(32, 16, 1)
        self.wide = nn.Conv2d(32, 16, 5, padding=2)
        self.shared = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.upwards = nn.ConvTranspose2d(16, 16, 2, stride=2)
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(x + self.block(x))
        x = torch.cat([x, self.pointwise(functional.relu(self.depthwise(self.grouped(x))))], 1)
        x = functional.relu(self.wide(x))
        x = functional.relu(self.shared(functional.relu(self.shared(x))))
        x = functional.relu(self.upwards(x)).mean((2, 3))
        return self.head(functional.relu(self.hidden(x)))


def mixed(seed: int = 0) -> Mixed:
    """The model with random weights."""
    torch.manual_seed(seed)
    return Mixed()


def inputs(batch: int = 2) -> torch.Tensor:
    """A batch of its inputs."""
    return torch.randn((batch, 3, 8, 8), generator=torch.Generator().manual_seed(batch))


def train(model: nn.Module, pruner, epochs: int, *, optimizer=None, first: int = 0) -> torch.optim.Optimizer:
    """Epochs of two batches of noise each, with the pruner in the loop."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-2)
    rng = torch.Generator().manual_seed(first)
    model.train()
    for epoch in range(first, first + epochs):
        for _ in range(2):
            x = torch.randn((8, 3, 8, 8), generator=rng)
            y = torch.randint(5, (8,), generator=rng)
            loss = functional.cross_entropy(model(x), y) + pruner.penalty()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        pruner.step(epoch)
    return optimizer
