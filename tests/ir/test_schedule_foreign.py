"""Schedules of TVM's own loop nests: every function gets one, and it is what the shapes call for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pconvgen.frontend import load_model
from pconvgen.pipeline import phases
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.schedules import is_scheduled
from pconvgen.tvm_compat.tir import PrimFunc


class Join(nn.Module):
    """Two tensors side by side, scaled."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, y], 1) * torch.sigmoid(x[:, :1])


class Mean(nn.Module):
    """The mean of rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(-1)


def functions(model: nn.Module, *shapes: tuple[int, ...], without: str = "") -> list[PrimFunc]:
    """TIR functions of a model after all phases but one."""
    module: Any = load_model(model, example=tuple(torch.randn(shape) for shape in shapes)).module
    for name, phase in phases(get_target("cortex-a76")):
        module = module if name == without else phase(module)
    return [function for function in module.functions.values() if isinstance(function, PrimFunc)]


def test_nothing_is_left_without_a_schedule() -> None:
    shapes = (1, 8, 64, 80), (1, 24, 64, 80)
    assert not all(map(is_scheduled, functions(Join(), *shapes, without="schedule")))
    (function,) = functions(Join(), *shapes)
    assert is_scheduled(function)


def test_large_nests_are_parallel_and_their_rows_one_loop() -> None:
    (function,) = functions(Join(), (1, 8, 64, 80), (1, 24, 64, 80))
    script = function.script()
    assert "T.parallel(T.int64(32))" in script
    assert "T.int64(5120)" in script
    assert "exp" not in script.replace("T.exp2", ""), "a call that LLVM makes no vectors of"


def test_small_nests_start_no_threads() -> None:
    (function,) = functions(Join(), (1, 2, 8, 8), (1, 3, 8, 8))
    assert "T.parallel" not in function.script()


def test_sums_of_rows_have_partial_sums() -> None:
    (function,) = functions(Mean(), (96, 3136))
    # Two vectors of four; 392 rounds of them make a row.
    assert "T.int64(392), T.int64(8)" in function.script()
