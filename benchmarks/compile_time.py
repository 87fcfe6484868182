"""How long compiling takes: python -m benchmarks.compile_time [NAME ...].

For each network of `make bench-networks`, dense and pruned, for networks that join many tensors, and for images and
kernels of awkward sizes: seconds to read the model, to compile it and to write the library, and the millions of cycles
that the analytic model predicts for what was chosen, so that a compiler that is quicker because it looks at less shows.
For this machine, one after the other in one process, after a small model that imports everything.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import pconvgen
from benchmarks.network_cases import CASES
from benchmarks.networks import NETWORKS
from pconvgen.frontend import load_model
from pconvgen.targets.presets import get_target

Made = tuple[nn.Module, torch.Tensor]

JOINS = (("DenseNet-121", "densenet", 1.0, 224), ("detector, YOLOv8n's size", "yolo", 0.25, 320))
"""Networks of many concatenations: names, keys of NETWORKS, widths and sizes of the image."""
IMAGES = ((1, 3_000), (1, 300_000), (100_000, 3), (2160, 3840))
"""Heights and widths of images for two layers."""
PATCHES = (7, 12, 16, 32)
"""Sizes of patches for one layer whose stride is its kernel."""


def layers(height: int, width: int) -> Made:
    """Two layers of an image."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    return model.eval(), torch.zeros(1, 3, height, width)


def patches(size: int) -> Made:
    """What cuts an image into patches and embeds them."""
    return nn.Conv2d(3, 32, size, stride=size).eval(), torch.zeros(1, 3, 96, 96)


def models() -> Iterator[tuple[str, Callable[[], Made]]]:
    """(name, what makes the model and its input)."""
    for case in CASES:
        yield case.network, lambda case=case: (case.build(), case.image())
        for variant in case.variants:
            made = lambda case=case, variant=variant: (case.pruned(variant), case.image())  # noqa: E731
            yield f"{case.network} {variant.name}", made
    for name, network, width, size in JOINS:
        image = torch.zeros(1, 3, size, size)
        yield name, lambda network=network, width=width, image=image: (NETWORKS[network](width=width).eval(), image)
    for height, width in IMAGES:
        yield f"image {height}x{width}", lambda height=height, width=width: layers(height, width)
    for size in PATCHES:
        yield f"patches {size}x{size}", lambda size=size: patches(size)


def seconds(model: nn.Module, image: torch.Tensor, folder: Path) -> tuple[list[float], float]:
    """Seconds to read, compile and write; predicted cycles."""
    times = [time.perf_counter()]
    imported = load_model(model, None, example=(image,))
    times.append(time.perf_counter())
    compiled = pconvgen.compile(imported)
    times.append(time.perf_counter())
    compiled.export(folder / "model.so")
    times.append(time.perf_counter())
    cycles = sum(decision.predicted_cycles for decision in compiled.decisions)
    return [after - before for before, after in pairwise(times)], cycles


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="shell patterns of models, e.g. 'image *'")
    patterns = parser.parse_args().names or ["*"]
    chosen = [(name, made) for name, made in models() if any(fnmatch(name, pattern) for pattern in patterns)]
    console = Console(width=100)
    table = Table("model", "read s", "compile s", "write s", "predicted M cycles")
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        seconds(*layers(16, 16), Path(folder))
        for name, made in track(chosen, "compiling", console=Console(stderr=True), transient=True):
            times, cycles = seconds(*made(), Path(folder))
            table.add_row(name, *(f"{each:.1f}" for each in times), f"{1e-6 * cycles:.4f}")
    console.print(f"for {get_target('host').cpu}")
    console.print(table)


if __name__ == "__main__":
    main()
