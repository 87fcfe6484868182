"""Where the time of whole networks goes, operator by operator: python -m benchmarks.operators [NETWORK ...].

Each network is compiled at 224x224, batch 1, dense or pruned, and each call of its functions is timed, on one thread.
Listed is what takes more than 2 % of a network's time outside of convolutions and matrix products, with the bytes it
reads and writes per second, beside the share of all such functions together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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


def operators(library: Path, inputs: list[Any]) -> list[Operator]:
    """The calls of a library's function "main", in order, each with its least time of several runs."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    arguments = [tvm.runtime.tensor(array) for array in inputs]
    calls: list[tuple[str, float, int]] = []
    started = 0.0

    def instrument(_function: Any, symbol: str, before: bool, _result: Any, *args: Any) -> None:
        nonlocal started
        now = time.perf_counter()
        if not before and not symbol.startswith("vm."):
            nbytes = sum(4 * arg.numpy().size for arg in args if hasattr(arg, "numpy"))
            calls.append((symbol, 1e3 * (now - started), nbytes))
        started = time.perf_counter()

    machine.set_instrument(instrument)
    runs = []
    for _ in range(CALLS):
        calls.clear()
        machine["main"](*arguments)
        runs.append(list(calls))
    return [Operator(same[0][0], min(ms for _, ms, _ in same), same[0][2]) for same in zip(*runs, strict=True)]


def measure(network: str, pruned: bool) -> list[Operator]:
    """Compiles a network with random weights and times its operators."""
    os.environ["TVM_NUM_THREADS"] = "1"
    import torch

    import pconvgen
    from benchmarks.networks import NETWORKS, randomize
    from pconvgen.sparsify import sparsify

    torch.manual_seed(0)
    model = randomize(NETWORKS[network](), 0, 64)
    if pruned:
        sparsify(model, *PRUNING)
    compiled = pconvgen.compile(pconvgen.load_model(model, example=(torch.randn(1, 3, 224, 224),)))
    with tempfile.TemporaryDirectory() as folder:
        path = compiled.export(Path(folder) / "model.so")
        return operators(path, list(compiled.manifest.random_inputs(0).values()))


def main() -> None:
    """Prints a table."""
    from benchmarks.networks import NETWORKS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], metavar="NETWORK")
    table = Table(title="time outside of convolutions and matrix products, one thread, 224x224")
    for name in ("network", "weights", "ms", "outside"):
        table.add_column(name, justify="right")
    table.add_column("more than 2 %: function, calls, share, GB/s")
    for network in parser.parse_args().networks or NETWORKS:
        for pruned in (False, True):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (network, pruned))
            table.add_row(network, "pruned" if pruned else "dense", *_row(found))
    Console(width=150).print(table)


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


if __name__ == "__main__":
    main()
