"""A small CNN from training to a pruned library on this machine and on emulated ARM."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import pconvgen
from benchmarks.demo.compare import OUT, compare, console, count
from pconvgen.devices import get_device
from pconvgen.model import CompiledModel
from pconvgen.pruning import Density, OneShotPruner
from pconvgen.report.layers import layer_table, summary

EPOCHS, FINE_TUNING, BATCH = 8, 8, 64
DENSITY = 0.125


class DigitNet(nn.Module):
    """A VGG of six 3x3 convolutions for images of 16x16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 64, 128, 128, 128)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            if index in (2, 4):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1] * 16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores [n, 10] of images [n, 1, 16, 16]."""
        return self.classifier(self.features(image).flatten(1))


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, text: str, rate: float) -> None:
    """Trains in place."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in track(range(epochs), text, console=console):
        for index in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def digits() -> None:
    """Train, prune, fine-tune, compile, compare."""
    console.rule("1. Train and prune")
    torch.manual_seed(0)
    data = load_digits()
    # Twice the size, so that the layers look like a network's rather than like a test's.
    images = torch.from_numpy((data.images / 16).astype(np.float32).repeat(2, 1).repeat(2, 2))[:, None]
    labels = torch.from_numpy(data.target)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.25, random_state=0, stratify=data.target
    )
    model = DigitNet()
    train(model, train_x, train_y, EPOCHS, "training", 2e-3)
    with torch.no_grad():
        before = accuracy(model(test_x).numpy(), test_y)
    pruner = OneShotPruner(model, (test_x[:1],), "pattern", Density(DENSITY))
    pruner.harden()
    train(model, train_x, train_y, FINE_TUNING, "fine-tuning the pruned network", 1e-3)
    with torch.no_grad():
        scores = model(test_x).numpy()
    console.print(
        f"accuracy on {len(test_x)} test images: dense {before:.1%}, pruned to patterns + connectivity "
        f"({DENSITY:.1%} of the weights) {accuracy(scores, test_y):.1%}"
    )

    console.rule("2. Compile for this machine and for an ARM Cortex-A76")
    example = (test_x,)
    compiled = {}
    for target in track(("host", "cortex-a76"), "compiling", console=console):
        compiled[target] = pconvgen.compile(model, target, example=example)
        compiled[target].export(OUT / f"digits-{target}.so")
    for target, library in compiled.items():
        size = (OUT / f"digits-{target}.so").stat().st_size
        console.print(f"out/digits-{target}.so: {summary(library.decisions, size)}")
    console.print(layer_table(compiled["host"].decisions))

    console.rule("3. The same answers")
    console.print(f"PyTorch        accuracy {accuracy(scores, test_y):.2%}")
    report("this machine", compiled["host"], test_x, test_y, scores)
    missing = get_device("emulated").available()
    if missing:
        console.print(f"Cortex-A76     SKIPPED: {missing}")
    else:
        report("Cortex-A76", compiled["cortex-a76"], test_x, test_y, scores)

    console.rule("4. Against the same network compiled dense")
    compare(compiled["host"], test_x)
    if not missing:
        count(model, test_x[:1])


def accuracy(scores: NDArray[np.float32], labels: torch.Tensor) -> float:
    """Share of images whose highest score is their label's."""
    return float((scores.argmax(1) == labels.numpy()).mean())


def report(name: str, library: CompiledModel, images: torch.Tensor, labels: torch.Tensor, expected: NDArray) -> None:
    """Runs all images and counts those whose answer is not PyTorch's."""
    with console.status(f"running {len(images)} images on {name}"):
        (scores,) = library.run(images.numpy()).values()
    differ = int((scores.argmax(1) != expected.argmax(1)).sum())
    error = np.abs(scores - expected).max() / np.abs(expected).max()
    console.print(
        f"{name:14s} accuracy {accuracy(scores, labels):.2%}, {differ} of {len(images)} answers differ from PyTorch's, "
        f"largest error {error:.1e}"
    )
    if differ:
        raise SystemExit(f"{name}: the library does not give PyTorch's answers")
