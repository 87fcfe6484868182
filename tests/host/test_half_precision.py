"""float16 in storage on this machine: random kernels, a network, and what leaves the range."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from check_kernels import CHECKED, CPUS, command
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.frontend import load_model
from pconvgen.overflow import first_overflow
from pconvgen.targets.host import CPUINFO, cpu_flags
from pconvgen.values.precision import precision
from pconvgen.verify import check, verify
from tests.random_kernels import HALF
from tests.segmenter import SHAPE, segmenter
from tests.small import small

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
COUNT = 6
"""Workloads of each template and instruction set."""
FLAGS = cpu_flags(CPUINFO.read_text())
USABLE = [isa for isa in CHECKED if CPUS[isa][1] <= FLAGS]
WIDTHS = [isa for isa in ("neon", "avx2", "avx512") if isa in USABLE]
"""Instruction sets that convert vectors of different lengths."""


@pytest.mark.parametrize("isa", WIDTHS)
@pytest.mark.parametrize("template", HALF)
def test_random_workloads_are_right(template: str, isa: str) -> None:
    """Weights are converted as with float32 activations, for which ARM's tests look."""
    run = command(template, isa, range(COUNT), "dtype=float16", "accumulate=float32")
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(re.findall(r"^FAILED .*$", done.stdout, re.MULTILINE)) + done.stderr[-2000:]


def test_a_network_is_close() -> None:
    model = load_model(segmenter("pattern"), example=(torch.zeros(SHAPE),))
    result = verify(pconvgen.compile(model, dtype="float16", accumulate="float32"), seeds=(0,))
    assert 1e-5 < result.max_relative_error < 2e-3, "rounding to 11 bits, and not more"
    assert (result.passed, result.overflow) == (True, None)


POOLS = (
    nn.MaxPool2d(2, 2),
    nn.MaxPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1),
    nn.MaxPool2d((5, 3), (1, 2), (2, 0), (1, 2)),
)


class Pools(nn.Module):
    """All of them side by side."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [pool(x) for pool in POOLS]


@pytest.mark.parametrize("width", [7, 31, 64])
def test_pooling_rounds_once(width: int) -> None:
    """Of numbers that are float16, a maximum is exact, and a mean is rounded once: it is summed in float32."""
    model = load_model(Pools(), example=(torch.zeros(2, 3, 23, width),))
    compiled = pconvgen.compile(model, dtype="float16", accumulate="float32")
    data = np.random.default_rng(width).standard_normal((2, 3, 23, width)).astype(np.float16).astype(np.float32)
    outputs = compiled.run(data).values()
    for pool, found in zip(POOLS, outputs, strict=True):
        expected = pool(torch.from_numpy(data).double()).numpy()
        if isinstance(pool, nn.MaxPool2d):
            np.testing.assert_array_equal(found, expected)
        assert (np.abs(found - expected) <= np.maximum(np.abs(expected) * (2.0**-11 + 1e-6), 1e-7)).all(), pool


class Large(nn.Module):
    """Sums of some 1e5 between an input and an output of some tens."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 1, bias=False)
        nn.init.constant_(self.first.weight, 1e4)
        nn.init.constant_(self.second.weight, 1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_what_leaves_the_range_is_named() -> None:
    model = load_model(Large().eval(), example=(torch.zeros(1, 3, 16, 16),))
    formats = precision("float16", accumulate="float32")
    result = verify(pconvgen.compile(model, dtype="float16", accumulate="float32"))
    assert result.overflow is not None
    assert result.overflow_layer is not None
    assert result.overflow_layer[0] == "first"
    assert 65504 < result.overflow_layer[1] < 1e6
    said = r"layer first: the model leaves the range of float16.*infinities or NaNs in output.*--dtype float32"
    with pytest.raises(PconvgenError, match=said):
        check(result, "large.pt2", formats)
    narrow = verify(pconvgen.compile(model, weights="float16"))
    assert narrow.overflow is None
    check(narrow, "large.pt2", precision(weights="float16"))


def test_no_layer_is_blamed_for_what_fits() -> None:
    model = load_model(small(), example=(torch.zeros(1, 3, 8, 8),))
    (spec,) = model.inputs
    data = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    assert first_overflow(model, {spec.name: data}) is None


def test_weights_that_do_not_fit() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
    with torch.no_grad():
        network[0].weight[0, 0] = 7e4
    model = load_model(network.eval(), example=(torch.zeros(1, 3, 4, 4),))
    with pytest.raises(PconvgenError, match=r"a weight is too large for float16 \(found 70000"):
        pconvgen.compile(model, weights="float16")


@pytest.mark.skipif(not any(isa.startswith("avx") for isa in USABLE), reason="this machine computes in float16")
def test_this_machine_does_not_compute_in_float16() -> None:
    with pytest.raises(UsageError, match="does not compute in float16"):
        pconvgen.compile(load_model(small(), example=(torch.zeros(1, 3, 8, 8),)), dtype="float16")
