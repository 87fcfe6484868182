"""The operators of a network and their times."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import pconvgen
from benchmarks.engines.engine import LIBRARY
from benchmarks.engines.running import running
from benchmarks.models import NETWORKS
from benchmarks.models.weights import randomize
from benchmarks.networks.results import DENSE
from pconvgen.errors import UsageError
from pconvgen.sparsify import sparsify

SHARE = 0.02
"""What is worth a line."""
CALLS = 12
PRUNING = ("simd_block", 0.25)
LAYERS = ("pixel", "pack", "channel", "winograd")
"""What names of functions of convolutions and matrix products begin with."""


@dataclass(frozen=True)
class Operator:
    """One call in a network.

    Attributes
    ----------
    name: of its function.
    ms: least time of a call.
    nbytes: of the tensors it reads and writes.
    """

    name: str
    ms: float
    nbytes: int

    @property
    def layer(self) -> bool:
        """Whether it is part of a convolution or matrix product."""
        return self.name.startswith(LAYERS)


def run(names: Sequence[str]) -> None:
    """Measures networks, all if none is named, and prints a table.

    Raises
    ------
    UsageError: there is no such network.
    """
    if unknown := set(names) - set(NETWORKS):
        raise UsageError("no such network", found=", ".join(sorted(unknown)), expected=", ".join(NETWORKS))
    table = Table(title="time outside of convolutions and matrix products, one thread, 224x224")
    for name in ("network", "weights", "ms", "outside"):
        table.add_column(name, justify="right")
    table.add_column("more than 2 %: function, calls, share, GB/s")
    for network in names or NETWORKS:
        for pruned in (False, True):
            # A process of its own, for the memory of what was compiled before.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (network, pruned))
            table.add_row(network, "pruned" if pruned else DENSE, *_row(found))
    Console(width=150).print(table)


def measure(network: str, pruned: bool) -> list[Operator]:
    """Compiles a network with random weights and times its operators, each with its least time of several runs."""
    torch.manual_seed(0)
    model = randomize(NETWORKS[network](), 0, 64)
    if pruned:
        sparsify(model, *PRUNING)
    compiled = pconvgen.compile(pconvgen.load_model(model, example=(torch.randn(1, 3, 224, 224),)))
    with tempfile.TemporaryDirectory(prefix="pconvgen-operators-") as folder, running(LIBRARY) as process:
        path = compiled.export(Path(folder) / "model.so")
        process.load(path, compiled.manifest.random_inputs(0), [name for name, _, _ in compiled.manifest.outputs])
        calls = process.profile(CALLS)
    return [
        Operator(call["name"], call["ms"], sum(call["nbytes"])) for call in calls if not call["name"].startswith("vm.")
    ]


def _row(found: list[Operator]) -> tuple[str, str, str]:
    total = sum(each.ms for each in found)
    others = [each for each in found if not each.layer]
    lines = []
    for name in dict.fromkeys(each.name for each in others):
        same = [each for each in others if each.name == name]
        ms = sum(each.ms for each in same)
        if ms > SHARE * total:
            speed = sum(each.nbytes for each in same) / ms / 1e6
            lines.append(f"{name} x{len(same)} {ms / total:.1%} {speed:.0f}")
    return f"{total:.2f}", f"{sum(each.ms for each in others) / total:.1%}", "\n".join(lines)
