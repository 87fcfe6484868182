"""Normalisation as ARM libraries under emulation: no further from exact numbers than PyTorch."""

from __future__ import annotations

import pytest
import torch

import pconvgen
from pconvgen.devices import get_device
from tests.normalising import MOMENTS, Norms, data, far_off

pytestmark = pytest.mark.cross


def test_errors_are_no_more_than_pytorchs() -> None:
    reason = get_device("emulated").available()
    if reason:
        pytest.skip(f"ARM code cannot be run: {reason}")
    model = Norms().eval()
    compiled = pconvgen.compile(model, "cortex-a76", example=(torch.from_numpy(data(0, 1)),))
    for mean, deviation in MOMENTS:
        x = data(mean, deviation)
        found = compiled.run({compiled.manifest.inputs[0][0]: x})
        assert not far_off(model, x, found), (mean, deviation)
