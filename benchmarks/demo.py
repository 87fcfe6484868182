"""The main job in minutes: `make demo`.

A small CNN learns scikit-learn's digits, is pruned to patterns and connectivity, learns again, and becomes two shared
libraries: for this machine and for an ARM Cortex-A76, which runs under emulation. Then a network of ResNet-50's size.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import pconvgen
from benchmarks.networks import resnet50
from pconvgen.devices import get_device
from pconvgen.model import CompiledModel
from pconvgen.pruning import Density, OneShotPruner
from pconvgen.report.layers import layer_table, summary
from pconvgen.sparsify import sparsify

OUT = Path("out")
EPOCHS, FINE_TUNING, BATCH = 8, 8, 64
DENSITY = 0.125
console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)


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


def compare(pruned: CompiledModel, images: torch.Tensor) -> None:
    """Measures the network and the same one compiled dense, in turn."""
    with console.status("compiling dense"):
        dense = pconvgen.compile(pruned.imported, pruned.target.name, dense=True)
    with console.status("measuring"):
        results = [library.bench(images.numpy()) for library in (pruned, dense)]
    sparse_ms, dense_ms = (result.median_ms or 0.0 for result in results)
    console.print(
        f"this machine, 1 thread, batch {len(images)}: {sparse_ms:.2f} ms pruned, {dense_ms:.2f} ms dense: "
        f"{dense_ms / sparse_ms:.2f}x faster"
    )


def count(model: nn.Module, image: torch.Tensor) -> None:
    """Counts the ARM instructions of one image for the network and the same one compiled dense."""
    with console.status("counting instructions under emulation"):
        pruned = pconvgen.compile(model, "cortex-a76", example=(image,))
        dense = pconvgen.compile(pruned.imported, "cortex-a76", dense=True)
        counts = [library.bench(image.numpy()).instructions or 0 for library in (pruned, dense)]
    console.print(
        f"Cortex-A76, one image: {counts[0] / 1e6:.2f} M instructions pruned, {counts[1] / 1e6:.2f} M dense: "
        f"{counts[1] / counts[0]:.2f}x fewer (counted under emulation; no times)"
    )


def large() -> None:
    """A network of ResNet-50's size, random weights pruned to 25 %."""
    console.rule("5. ResNet-50 at 224x224: patterns on 3x3, SIMD blocks on 1x1, 25 % of the weights")
    torch.manual_seed(0)
    model = resnet50().eval()
    sparsify(model, "pattern", 0.25)
    image = torch.randn(1, 3, 224, 224)
    started = time.perf_counter()
    with console.status("compiling"):
        compiled = pconvgen.compile(model, "host", example=(image,))
        path = compiled.export(OUT / "resnet50-host.so")
    console.print(f"compiled in {time.perf_counter() - started:.0f} s")
    console.print(layer_table(compiled.decisions))
    console.print(f"{path}: {summary(compiled.decisions, path.stat().st_size)}")
    with torch.no_grad():
        expected = model(image).numpy()
    (scores,) = compiled.run(image.numpy()).values()
    console.print(f"largest error against PyTorch {np.abs(scores - expected).max() / np.abs(expected).max():.1e}")
    compare(compiled, image)


def main() -> None:
    """Runs all parts; libraries are left in out/."""
    OUT.mkdir(exist_ok=True)
    digits()
    large()


if __name__ == "__main__":
    main()
