"""A network of ResNet-50's size."""

from __future__ import annotations

import time

import numpy as np
import torch

import pconvgen
from benchmarks.demo.compare import OUT, compare, console
from benchmarks.models.resnet import resnet50
from pconvgen.report.layers import layer_table, summary
from pconvgen.sparsify import sparsify


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
