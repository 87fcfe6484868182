"""Pruned libraries beside the same networks compiled dense."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import pconvgen
from pconvgen.model import CompiledModel

OUT = Path("out")
console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)


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
