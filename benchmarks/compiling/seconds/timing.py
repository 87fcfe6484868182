"""The seconds of each model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import pconvgen
from benchmarks.command import matches
from benchmarks.compiling.seconds.models import layers, models
from pconvgen.frontend import load_model
from pconvgen.targets.presets import get_target


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


def run(patterns: Sequence[str] | None) -> None:
    """Measures the models whose names match a shell pattern, None for all, and prints."""
    chosen = [(name, made) for name, made in models() if matches((name,), patterns)]
    console = Console(width=100)
    table = Table("model", "read s", "compile s", "write s", "predicted M cycles")
    with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
        seconds(*layers(16, 16), Path(folder))
        for name, made in track(chosen, "compiling", console=Console(stderr=True), transient=True):
            times, cycles = seconds(*made(), Path(folder))
            table.add_row(name, *(f"{each:.1f}" for each in times), f"{1e-6 * cycles:.4f}")
    console.print(f"for {get_target('host').cpu}")
    console.print(table)
