"""What each example of docs/extending.md is asked for, in a process of the copy that it was written into.

python -m tests.extended structure    # or core, family
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from itertools import islice
from typing import Any
from unittest import mock

import numpy as np
import torch
import tvm
from rich.console import Console

import pconvgen
from pconvgen.latency.features import features
from pconvgen.planning.choose import LayerPlan, plan_layer
from pconvgen.pruning import Density, OneShotPruner
from pconvgen.records.describe import describe_choice, describe_target
from pconvgen.report.layers import layer_table
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import candidates, density, project, smallest
from pconvgen.targets.host import CPUINFO, core_of, cpu_flags
from pconvgen.targets.presets import get_target
from pconvgen.templates.choice import Choice
from pconvgen.values.target import Target
from pconvgen.verify import verify
from tests.check_kernels import CPUS
from tests.random_kernels import draw, failures
from tests.small import SHAPE, small

KERNELS = 12
"""Random kernels of an example."""
DRAWN = 400
"""Of so many, some have the structure."""


def compiled_right(model: torch.nn.Module, target: Target) -> Mapping[str, LayerPlan]:
    """The plans of a model's layers by their names, by predicted cycles; it computes what PyTorch does, and a table has
    what was decided."""
    plans = {}

    def planner(*args: Any, **options: Any) -> LayerPlan:
        plan = plan_layer(*args, **options)
        plans[plan.decision.name] = plan
        return plan

    with mock.patch("pconvgen.compiler.get_target", return_value=target):
        compiled = pconvgen.compile(model, example=(torch.zeros(SHAPE),), planner=planner)
    assert verify(compiled, seeds=(0,)).passed
    Console(file=(table := StringIO()), width=1000).print(layer_table(compiled.decisions))
    for plan in plans.values():
        assert plan.decision in compiled.decisions
        assert plan.decision.choice in table.getvalue()
    return plans


def seen(plan: LayerPlan) -> dict[str, float]:
    """What a model of latency sees of a layer."""
    choice = plan.choice
    assert isinstance(choice, Choice)
    return features(*plan.layer.described(choice.places), describe_choice(choice), choice.cycles)


def usable() -> str:
    """A core that this machine can stand for."""
    flags = cpu_flags(CPUINFO.read_text())
    return next(name for name, (_, needs) in CPUS.items() if needs <= flags)


def right(template: str, core: str, numbers: Sequence[int]) -> None:
    """Random kernels compute what they should."""
    assert len(numbers) == KERNELS
    target = tvm.target.Target({"kind": "llvm", "mcpu": CPUS[core][0]})
    assert not list(failures(template, core, numbers, target))


def structure() -> None:
    """kernel_rows is found, pruned to, compiled, and drawn."""
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3), dtype=np.float32)
    pruned = project("kernel_rows", weight, 1 / 3)
    assert density(pruned) == np.float32(1 / 3)
    assert smallest(candidates(pruned)).structure == "kernel_rows"
    pruner = OneShotPruner(model := small(), (torch.zeros(SHAPE),), "kernel_rows", Density(1 / 3))
    pruner.harden()
    assert {row.name: row.structure for row in pruner.report()}["wide"] == "kernel_rows"
    plans = compiled_right(model, get_target("host"))
    assert plans["wide"].decision.structure == "kernel_rows"
    assert plans["wide"].decision.choice == "pixels: kernel_rows"
    assert seen(plans["wide"])["structure kernel_rows"] == 1
    core = usable()
    drawn = (n for n in range(DRAWN) if " kernel_rows " in draw("pixels", core, n).text)
    right("pixels", core, list(islice(drawn, KERNELS)))


def core() -> None:
    """gracemont is what a machine is, compiled for, and drawn for."""
    row = CORES["gracemont"]
    assert core_of("x86_64", "gracemont", frozenset({"avx2", "fma"})) is row
    target = replace(get_target("host"), core=row)
    assert describe_target(target)["isa"] == "avx2"
    plans = compiled_right(small(), target)
    assert {plan.choice.schedule.lanes for plan in plans.values()} <= {2, 4, 8}, "no vectors but its own"
    right("pixels", "gracemont", range(KERNELS))


def family() -> None:
    """strips is chosen, compiled, and drawn."""
    plans = compiled_right(small(), get_target("host"))
    assert plans["wide"].decision.choice == "strips: dense"
    assert seen(plans["wide"])["family strips"] == 1
    right("strips", usable(), range(KERNELS))


EXAMPLES: dict[str, Callable[[], None]] = {"structure": structure, "core": core, "family": family}

if __name__ == "__main__":
    EXAMPLES[sys.argv[1]]()
