"""Random weights, with which networks compute something that can be compared."""

from __future__ import annotations

import torch
from torch import nn


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
