"""Activations in registers, over all floats against double precision, and behind layers against PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import pconvgen
from pconvgen.frontend import Imported, load_model
from pconvgen.passes.lower import LowerLayers
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from pconvgen.templates.activations import activate, exponential, exponential_to_1
from pconvgen.tvm_compat.building import compile_module
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.tir import T, prim_func, ramp
from pconvgen.values.workload import Activation, X
from tests.activations import ACTIVATIONS, sigmoid, silu
from tests.networks import TOLERANCE, relative_error
from tests.relax_modules import calls

pytestmark = pytest.mark.host

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, -1e-38, 3.4e38, -3.4e38]
SMALLEST_NORMAL = 2.0**-126
"""What results may be off by where they are denormal: kernels flush them to zero."""


def compute(function: Callable[[Any], Any], values: NDArray[np.float32], lanes: int) -> NDArray[np.float32]:
    """`function` of a multiple of `lanes` values on this machine, of vectors of so many."""
    with prim_func("kernel") as get:
        data = T.arg("data", T.buffer((values.size,), "float32", align=4))
        output = T.arg("output", T.buffer((values.size,), "float32", align=4))
        with T.serial(0, values.size // lanes) as i:
            at = ramp(T.Bind(T.Cast("int64", i) * lanes), lanes)
            T.buffer_store(output, function(T.Bind(data[at])), [at])
    module = tvm.IRModule({"kernel": get().with_attr("global_symbol", "kernel")})
    result = tvm.runtime.tensor(np.empty_like(values))
    compile_module(module, llvm_target(get_target("host")))["kernel"](tvm.runtime.tensor(values), result)
    return result.numpy()


def sweep() -> NDArray[np.float32]:
    """Floats of every size and sign, closely where sigmoid bends and where it vanishes, and special ones; 48 * n."""
    every = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    close = np.concatenate([np.linspace(-20, 20, 400_000), np.linspace(-112, -80, 200_000), SPECIAL])
    values = np.concatenate([every, close.astype(np.float32)])
    return np.resize(values, -(-values.size // 48) * 48)


@pytest.mark.parametrize("lanes", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("exact", [sigmoid, silu])
def test_over_all_floats(exact: Callable[..., NDArray[np.float64]], lanes: int) -> None:
    values = sweep()
    found = compute(lambda x: activate(Activation(exact.__name__, (X,)), x, lanes), values, lanes)
    with np.errstate(invalid="ignore"):
        expected = exact(values.astype(np.float64))
    check_numbers(found, expected, 2.4e-7)
    numbers = ~np.isnan(expected)
    assert (np.signbit(found[numbers]) == np.signbit(expected[numbers])).all()


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize(("function", "largest"), [(exponential, np.inf), (exponential_to_1, 0)])
def test_exponentials_over_all_floats(function: Callable[..., Any], largest: float, lanes: int) -> None:
    values = np.concatenate([sweep(), np.linspace(85, 90, 48_000, dtype=np.float32)])
    values = np.minimum(values, np.float32(largest))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.exp(values.astype(np.float64))
        expected[expected.astype(np.float32) == np.inf] = np.inf
    found = compute(lambda x: function(lanes, x), values, lanes)
    check_numbers(found, expected, 1.3e-7)
    assert (found[values == 0] == 1).all()
    assert (found[values == -np.inf] == 0).all()


def check_numbers(found: NDArray[np.float32], expected: NDArray[np.float64], tolerance: float) -> None:
    """What is no number is the same; normal numbers have this relative error at most."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    error, size = np.abs(found[finite] - expected[finite]), np.abs(expected[finite])
    normal = size >= SMALLEST_NORMAL
    assert (error[normal] / size[normal]).max() <= tolerance
    assert error[~normal].max(initial=0) <= SMALLEST_NORMAL


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "none"])
@pytest.mark.parametrize("lanes", [1, 2, 5, 8])
def test_every_operation(name: str, lanes: int) -> None:
    activation, function = ACTIVATIONS[name]
    assert activation is not None
    values = np.resize(np.float32([*np.linspace(-9, 9, 397), np.nan]), 400)
    found = compute(lambda x: activate(activation, x, lanes), values, lanes)
    expected = function(values.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


MODULES: dict[str, nn.Module] = {
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "leaky relu": nn.LeakyReLU(0.1),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "relu6": nn.ReLU6(),
}


class Net(nn.Module):
    """The activation behind every kind of layer: convolution, depthwise, 1x1, with a shortcut behind it, linear."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1, groups=16)
        self.point, self.gate = nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 16, 1)
        self.hidden, self.classes = nn.Linear(16, 24), nn.Linear(24, 10, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.depthwise(self.activation(self.stem(x))))
        x = x + self.activation(self.point(x))
        x = x * self.activation(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        return self.activation(self.classes(self.activation(self.hidden(x.mean((2, 3))))))


def model_of(activation: nn.Module, structure: str | None) -> Net:
    torch.manual_seed(0)
    model = Net(activation).eval()
    if structure is not None:
        sparsify(model, structure, 0.25)
    return model


def check(imported: Imported) -> None:
    """The answers are the framework's, and what layers have behind them is in their kernels."""
    assert relative_error(pconvgen.compile(imported)) <= TOLERANCE
    left = calls(LowerLayers(get_target("host"))(imported.module))
    # The shortcut, the gate's product and two means are not behind a layer's result alone.
    others = {"winograd", "globalpool", "pointwise", "relax.reshape"}
    assert left.keys() <= {"pixel", "pack", "channel", *others}
    assert left["pointwise"] == 2, left


@pytest.mark.parametrize("structure", [None, "pattern", "simd_block", "unstructured"])
@pytest.mark.parametrize("name", MODULES)
def test_from_torch(name: str, structure: str | None) -> None:
    check(load_model(model_of(MODULES[name], structure), example=(torch.zeros(2, 3, 12, 10),)))


def onnx(model: nn.Module, path: Path, **options: Any) -> Imported:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(2, 3, 12, 10),), str(path), **options)
    return load_model(path)


@pytest.mark.parametrize(
    "options", [{"dynamo": False}, {"dynamo": False, "opset_version": 13}, {"dynamo": True}], ids=str
)
@pytest.mark.parametrize("name", MODULES)
def test_from_onnx(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    check(onnx(model_of(MODULES[name], "unstructured"), tmp_path / "model.onnx", **options))
