"""Winograd in float32 against float64, with as many channels as networks have, and as a layer of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm

import pconvgen
from pconvgen.targets.presets import get_target
from pconvgen.templates.winograd.kernel import WinogradKernel
from pconvgen.templates.winograd.product import pack_weight
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.planes import plain_layout
from pconvgen.values.schedule import WinogradSchedule
from pconvgen.values.workload import ConvWorkload

pytestmark = pytest.mark.host


@pytest.mark.parametrize(("m", "most"), [(2, 2e-6), (4, 1e-5)])
def test_error_with_512_channels(m: int, most: float) -> None:
    """Of the largest output; random numbers. docs/kernels.md names the errors measured."""
    w = ConvWorkload(1, 512, 10, 10, 64, (3, 3))
    target = get_target("host")
    isa = target.core.isa
    schedule = WinogradSchedule(m, isa.lanes(w.precision.arithmetic)[-1], 1, 8, 2)
    kernel = WinogradKernel(w, schedule, isa, plain_layout(512, 10, 10), plain_layout(64, 8, 8), None, (0, 0, 0))
    module = tvm.IRModule({"kernel": kernel.build().with_attr("global_symbol", "kernel")})
    library = compile_module(module, llvm_target(target))
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, 512, 10, 10)).astype(np.float32)
    weight = rng.standard_normal(w.weight_shape).astype(np.float32)
    output = tvm.runtime.tensor(np.full((1, 64, 8, 8), np.nan, np.float32))
    library["kernel"](tvm.runtime.tensor(data), tvm.runtime.tensor(pack_weight(kernel.grid, weight)), output)
    exact = torch.nn.functional.conv2d(torch.from_numpy(data).double(), torch.from_numpy(weight).double()).numpy()
    error = np.abs(output.numpy() - exact).max() / np.abs(exact).max()
    print(f"F({m},3): {error:.1e}")
    assert error < most


def test_dense_network_runs_with_winograd() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.Hardswish(),
        torch.nn.Conv2d(32, 32, 3),
        torch.nn.ReLU(),
    )
    imported = pconvgen.load_model(model.eval(), example=(torch.randn(2, 3, 29, 30),))
    compiled = pconvgen.compile(imported)
    chosen = [decision for decision in compiled.decisions if decision.choice.startswith("winograd: F(")]
    assert len(chosen) >= 2
    for decision in chosen:
        assert decision.structure == "dense"
        assert "fewer cycles than direct convolution" in decision.reason
    inputs = compiled.manifest.random_inputs(0)
    (expected,), (found,) = imported.reference(inputs).values(), compiled.run(inputs).values()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
