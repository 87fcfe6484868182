"""Whole networks as ARM libraries under emulation, pruned and dense, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.devices import get_device
from pconvgen.frontend import load_model
from tests.networks import TOLERANCE, cases, imported, relative_error
from tests.segmenter import SHAPE, segmenter

pytestmark = pytest.mark.cross


@pytest.fixture(autouse=True, scope="module")
def _emulator() -> None:
    reason = get_device("emulated").available()
    if reason:
        pytest.skip(f"ARM code cannot be run: {reason}")


@pytest.mark.parametrize(("name", "structure"), cases(shift=0))
def test_answers_are_pytorchs(name: str, structure: str | None) -> None:
    assert relative_error(pconvgen.compile(imported(name, structure), "cortex-a76")) <= TOLERANCE


@pytest.mark.parametrize("target", ["cortex-a53", "cortex-a55", "cortex-a72", "cortex-x1", "android-arm64"])
def test_other_targets(target: str) -> None:
    assert relative_error(pconvgen.compile(imported("resnet18", "simd_block"), target)) <= TOLERANCE


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Sigmoid(), nn.Hardswish(), nn.LeakyReLU()], ids=str)
def test_activations_over_all_floats(activation: nn.Module) -> None:
    """NEON has its own rounding of what is fused. Denormal numbers are zero in kernels, as operands and results."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    values = np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([values, np.linspace(-112, 20, 2**16, dtype=np.float32)])
    values = np.nan_to_num(values, nan=1, posinf=1, neginf=1)[None, None, None]
    compiled = pconvgen.compile(nn.Sequential(layer, activation), "cortex-a76", example=(torch.from_numpy(values),))
    (found,) = compiled.run({compiled.manifest.inputs[0][0]: values}).values()
    with torch.no_grad():
        expected = activation(torch.from_numpy(values).double()).numpy()
    error = np.abs(found - expected)
    assert (error <= np.maximum(2.4e-7 * np.abs(expected), 2.0**-126)).all()


@pytest.mark.parametrize("target", ["cortex-a53", "cortex-a76"])
def test_transposed_convolutions_and_pooling(target: str) -> None:
    model = load_model(segmenter("simd_block"), example=(torch.zeros(SHAPE),))
    assert relative_error(pconvgen.compile(model, target)) <= TOLERANCE


@pytest.mark.parametrize("target", ["cortex-a76", "android-arm64"])
def test_a_large_picture(target: str) -> None:
    """Its arena asks the system for huge pages, which must be there to be asked."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    model = load_model(nn.Sequential(*layers).eval(), example=(torch.zeros(1, 4, 480, 640),))
    compiled = pconvgen.compile(model, target)
    assert compiled.manifest.memory is not None
    assert compiled.manifest.memory.nbytes > 1 << 22
    assert relative_error(compiled) <= TOLERANCE
