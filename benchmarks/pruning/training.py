"""How networks are trained, pruned and fine-tuned for the figures on pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from benchmarks.pruning.datasets import Folders, Images
from benchmarks.pruning.networks import NETWORKS
from pconvgen.pruning import Pruner

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """Epochs and learning rates; each phase has a cycle of its own (Smith, arXiv 1708.07120).

    Fine-tuning is slow lest it undoes what ADMM found.

    Attributes
    ----------
    dense: epochs of the network that is pruned.
    prune: with the pruner's penalty.
    tune: afterwards, with masks.
    rate: the highest learning rate of the dense phase; half of it for pruning, a fifth for fine-tuning.
    """

    dense: int = 30
    prune: int = 12
    tune: int = 12
    rate: float = 0.1


def train(model: nn.Module, data: Images | Folders, epochs: int, rate: float, pruner: Pruner | None = None) -> None:
    """Trains in place; the pruner, if there is one, gets its steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = max(2, epochs * data.steps(BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for epoch in range(epochs):
        for images, classes in data.batches(BATCH):
            loss = functional.cross_entropy(model(images), classes)
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if pruner is not None:
            pruner.step(epoch)


@torch.no_grad()
def accuracy(model: nn.Module, data: Images | Folders) -> float:
    """Percent of the tests."""
    model.eval()
    right = total = 0
    for images, classes in data.tests(512):
        right += int((model(images).argmax(1) == classes).sum())
        total += len(classes)
    return 100 * right / total


def dense(network: str, data: Images | Folders, seed: int, recipe: Recipe) -> nn.Module:
    """A trained network."""
    torch.manual_seed(seed)
    # Channels last because torch trains so small convolutions faster so.
    model = NETWORKS[network](data.shape[0], data.classes).to(memory_format=torch.channels_last)
    train(model, data, recipe.dense, recipe.rate)
    return model


def example(data: Images | Folders) -> tuple[torch.Tensor]:
    """What networks are compiled for: one image."""
    return (torch.zeros(1, *data.shape),)


def trained_on(model: nn.Module, data: Images | Folders, seed: int, recipe: Recipe) -> nn.Module:
    """What the pruned networks are compared with: a copy that gets the training of both phases, without pruning."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    train(model, data, recipe.prune, recipe.rate / 2)
    train(model, data, recipe.tune, recipe.rate / 5)
    return model


def pruned(
    model: nn.Module,
    data: Images | Folders,
    seed: int,
    recipe: Recipe,
    make: Callable[[nn.Module], Pruner],
) -> tuple[nn.Module, float, float]:
    """A pruned copy of a network, its accuracy when it was pruned, and after fine-tuning.

    Parameters
    ----------
    make: the pruner of the copy.
    """
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    pruner = make(model)
    train(model, data, recipe.prune, recipe.rate / 2, pruner)
    pruner.harden()
    hard = accuracy(model, data)
    train(model, data, recipe.tune, recipe.rate / 5, pruner)
    return model, hard, accuracy(model, data)
