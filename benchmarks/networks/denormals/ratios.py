"""Times of models with numbers of several sizes, as ratios of one run."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pconvgen
from benchmarks.promises import Verdict, verdict_table
from pconvgen.report.console import output
from pconvgen.sparsify import sparsify
from pconvgen.tvm_compat.runtime import load, seconds_of, tensor

ROUNDS, REPEATS = 200, 3
PROMISED = 1.1
"""Most that denormal numbers add: times with them by times with normal ones."""

Numbers = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

NORMAL = "normal"
NUMBERS: Mapping[str, Numbers] = {
    NORMAL: lambda rng, shape: rng.standard_normal(shape),
    "denormal": lambda rng, shape: 2.0**-132 * rng.standard_normal(shape),
    # exp of the difference to the largest, or to 0, is between 2^-149 and 2^-126.
    "denormal by exp": lambda rng, shape: np.where(np.arange(shape[-1]) == 0, 0, rng.uniform(-103, -88, shape)),
}


@dataclass(frozen=True)
class Case:
    """A model, and the shape of its input."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _averaging(module: nn.Module) -> nn.Module:
    """With weights that add up to 1 for each output, so that results are of the size of inputs."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = torch.rand_like(layer.weight)
            layer.weight.data = weight / weight.flatten(1).sum(1).view(-1, *[1] * (weight.dim() - 1))
            nn.init.zeros_(layer.bias)
    return module.eval()


def _convolutions(activation: type[nn.Module]) -> nn.Module:
    layers = (layer for _ in range(3) for layer in (nn.Conv2d(64, 64, 3, padding=1), activation()))
    return _averaging(nn.Sequential(*layers))


def _pruned() -> nn.Module:
    model = _averaging(nn.Sequential(nn.Conv2d(128, 128, 3, padding=1)))
    sparsify(model, "pattern", 0.25, layers="*")
    return model


CASES = (
    Case("convolutions with SiLU", lambda: _convolutions(nn.SiLU), (1, 64, 56, 56)),
    Case("convolutions with sigmoid", lambda: _convolutions(nn.Sigmoid), (1, 64, 56, 56)),
    Case("linear layer behind SiLU", lambda: _averaging(nn.Sequential(nn.SiLU(), nn.Linear(512, 512))), (16, 512)),
    Case("softmax of 6,625 classes", lambda: nn.Softmax(-1), (1, 40, 6625)),
    Case("pruned convolution", _pruned, (1, 128, 28, 28)),
)


def run() -> int:
    """Prints a table; how many promises were missed."""
    os.environ["TVM_NUM_THREADS"] = "1"
    verdicts = [verdict for case in CASES for verdict in _measured(case)]
    output().print(verdict_table(verdicts, "denormal numbers"))
    return sum(verdict.missed for verdict in verdicts)


def _measured(case: Case) -> list[Verdict]:
    """Takes turns within one process, call by call, so that neighbours disturb all kinds of numbers alike."""
    torch.manual_seed(0)
    compiled = pconvgen.compile(case.build(), example=(torch.zeros(case.shape),))
    with tempfile.TemporaryDirectory(prefix="pconvgen-denormals-") as folder:
        machine = load(compiled.export(Path(folder) / "model.so"))
    rng = np.random.default_rng(0)
    inputs = {kind: tensor(make(rng, case.shape).astype(np.float32)) for kind, make in NUMBERS.items()}
    best = dict.fromkeys(NUMBERS, math.inf)
    for _ in range(ROUNDS):
        for kind, values in inputs.items():
            best[kind] = min(best[kind], *seconds_of(machine, [values], 1, REPEATS))
    return [_verdict(case, kind, 1e3 * best[kind], 1e3 * best[NORMAL]) for kind in NUMBERS if kind != NORMAL]


def _verdict(case: Case, kind: str, ms: float, normal_ms: float) -> Verdict:
    text = f"{case.name}, {kind}: at most {PROMISED:.2f}x"
    return Verdict(
        text, f"{ms / normal_ms:.2f}x of {normal_ms:.3f} ms", "ok" if ms <= PROMISED * normal_ms else "MISSED"
    )
