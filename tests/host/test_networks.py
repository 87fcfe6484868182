"""Whole networks on this machine, pruned and dense, against PyTorch."""

from __future__ import annotations

import pytest

import pconvgen
from tests.networks import TOLERANCE, imported, relative_error
from tests.zoo import ZOO

MEMORY = 1.2
"""The arena of the activations is at most this many times as large as the largest live set."""

pytestmark = pytest.mark.host

# Every network dense and with patterns; the other structures on networks that differ in their layers.
CASES = [(name, structure) for name in ZOO for structure in (None, "pattern")] + [
    (name, structure)
    for name in ("resnet18", "mobilenet_v2", "shufflenet")
    for structure in ("simd_block", "block_punched", "unstructured", "filter")
]


@pytest.mark.parametrize(("name", "structure"), CASES)
def test_answers_are_pytorchs(name: str, structure: str | None) -> None:
    model = imported(name, structure)
    compiled = pconvgen.compile(model)
    assert relative_error(compiled) <= TOLERANCE
    memory = compiled.manifest.memory
    assert memory is not None
    assert memory.live_nbytes <= memory.nbytes <= MEMORY * memory.live_nbytes
    if structure is not None:
        assert any(decision.structure != "dense" for decision in compiled.decisions)


@pytest.mark.parametrize("name", ZOO)
def test_zeros_can_be_ignored(name: str) -> None:
    compiled = pconvgen.compile(imported(name, "pattern"), dense=True)
    assert {decision.structure for decision in compiled.decisions} == {"dense"}
    assert relative_error(compiled) <= TOLERANCE
