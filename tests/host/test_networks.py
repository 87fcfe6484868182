"""Whole networks on this machine, pruned and dense, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

import pconvgen
from pconvgen.tvm_compat.building import build
from pconvgen.tvm_compat.schedules import is_scheduled
from pconvgen.tvm_compat.tir import PrimFunc
from tests.networks import TOLERANCE, cases, imported, relative_error
from tests.zoo import ZOO

MEMORY = 1.2
"""The arena of the activations is at most this many times as large as the largest live set."""

pytestmark = pytest.mark.host

DENSE_CODE = ("resnet18", "mobilenet_v2")
"""Networks whose zeros are ignored without --long: it is the code of dense networks, with other numbers."""


def unscheduled(module: Any) -> list[str]:
    """TIR functions that would run as they were written: one thread, one element after the other."""
    functions = module.functions.items()
    return [str(name) for name, function in functions if isinstance(function, PrimFunc) and not is_scheduled(function)]


@pytest.mark.parametrize(("name", "structure"), cases(shift=1))
def test_answers_are_pytorchs(name: str, structure: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def checked_build(module: Any, *rest: Any) -> Any:
        assert not unscheduled(module)
        return build(module, *rest)

    monkeypatch.setattr("pconvgen.compiler.build", checked_build)
    model = imported(name, structure)
    compiled = pconvgen.compile(model)
    assert relative_error(compiled) <= TOLERANCE
    memory = compiled.manifest.memory
    assert memory is not None
    assert memory.live_nbytes <= memory.nbytes <= MEMORY * memory.live_nbytes
    if structure is not None:
        assert any(decision.structure != "dense" for decision in compiled.decisions)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DENSE_CODE else pytest.mark.long) for name in ZOO]
)
def test_zeros_can_be_ignored(name: str) -> None:
    compiled = pconvgen.compile(imported(name, "pattern"), dense=True)
    assert {decision.structure for decision in compiled.decisions} == {"dense"}
    assert relative_error(compiled) <= TOLERANCE
