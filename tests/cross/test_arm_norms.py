"""Normalisation as ARM libraries under emulation: no further from exact numbers than PyTorch."""

from __future__ import annotations

import pytest
import torch

import pconvgen
from pconvgen.devices import get_device
from pconvgen.verify import TOLERANCE_STORED_HALF, verify
from tests.normalising import MOMENTS, Between, Norms, data, far_off

pytestmark = pytest.mark.cross


@pytest.fixture(autouse=True, scope="module")
def _emulator() -> None:
    reason = get_device("emulated").available()
    if reason:
        pytest.skip(f"ARM code cannot be run: {reason}")


def test_errors_are_no_more_than_pytorchs() -> None:
    model = Norms().eval()
    compiled = pconvgen.compile(model, "cortex-a76", example=(torch.from_numpy(data(0, 1)),))
    for mean, deviation in MOMENTS:
        x = data(mean, deviation)
        found = compiled.run({compiled.manifest.inputs[0][0]: x})
        assert not far_off(model, x, found), (mean, deviation)


@pytest.mark.parametrize("sums", ["float16", "float32"])
def test_half_precision(sums: str) -> None:
    """Statistics are summed in float32 in either; convolutions are not."""
    compiled = pconvgen.compile(
        Between().eval(), "cortex-a76", example=(torch.zeros(1, 3, 29, 31),), dtype="float16", accumulate=sums
    )
    assert verify(compiled, seeds=(0,)).max_relative_error <= TOLERANCE_STORED_HALF * (3 if sums == "float16" else 1)
