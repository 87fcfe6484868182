"""Pooling operators become calls of the pool templates and compute what they compute in PyTorch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional
from tvm import relax

from pconvgen.passes.lower import LowerLayers
from pconvgen.tvm_compat.building import compile_module
from tests.relax_modules import HOST, NN, calls, kernels, module_of

BATCH = 30


def lower(body: Any, *shape: int) -> Any:
    return LowerLayers(HOST)(module_of(body, *shape))


def run(module: Any, data: np.ndarray) -> list[np.ndarray]:
    built = compile_module(relax.get_pipeline("zero")(module), tvm.target.Target({"kind": "llvm", "mcpu": "haswell"}))
    found = relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(data))
    return [part.numpy() for part in found] if isinstance(found, tvm.ir.Array) else [found.numpy()]


@pytest.mark.parametrize(
    ("body", "kernel"),
    [
        (lambda emit, x: NN.max_pool2d(x, (2, 2), (2, 2)), "pool"),
        (lambda emit, x: NN.max_pool2d(x, (8, 8)), "globalpool"),
        (lambda emit, x: NN.avg_pool2d(x, (3, 3), padding=(1, 1)), "pool"),
        (lambda emit, x: NN.adaptive_avg_pool2d(x, (1, 1)), "globalpool"),
        (lambda emit, x: NN.adaptive_avg_pool2d(x, (4, 2)), "pool"),
        (lambda emit, x: relax.op.mean(x, [-1, 2]), "globalpool"),
        (lambda emit, x: relax.op.max(x, [2, 3], keepdims=True), "globalpool"),
    ],
)
def test_what_is_lowered(body: Any, kernel: str) -> None:
    lowered = lower(body)
    assert calls(lowered) == Counter({kernel: 1, "relax.reshape": int(kernel == "globalpool")})
    assert kernels(lowered) == 1


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: NN.max_pool2d(x, (2, 2), layout="NHWC"),
        lambda emit, x: NN.adaptive_avg_pool2d(x, (3, 3)),
        lambda emit, x: relax.op.mean(x, [1, 2]),
        lambda emit, x: relax.op.max(x, [3]),
        lambda emit, x: relax.op.mean(x),
        lambda emit, x: NN.max_pool2d(emit(relax.op.astype(x, "int32")), (2, 2)),
        lambda emit, x: NN.max_pool1d(emit(relax.op.reshape(x, (3, 8, 8))), (2,)),
    ],
)
def test_what_stays(body: Any) -> None:
    assert not kernels(lower(body))


def test_equal_pools_share_their_kernel() -> None:
    def body(emit: Any, x: Any) -> Any:
        return tuple(NN.max_pool2d(emit(op(x)), (2, 2), (2, 2)) for op in (NN.relu, relax.op.negative))

    lowered = lower(body)
    assert calls(lowered)["pool"] == 2
    assert kernels(lowered) == 1


@pytest.mark.host
@pytest.mark.parametrize("seed", range(6))
def test_random_pools(seed: int) -> None:
    """Modules of many pools of one input against PyTorch, which says how many elements a mean counts."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(1, 16)), int(rng.integers(1, 60)))
    data = rng.standard_normal(shape).astype(np.float32)
    expected, told = [], []

    def body(emit: Any, x: Any) -> Any:
        results = []
        while len(results) < BATCH:
            largest = int(rng.choice([3, 13]))
            kernel, stride = ([int(v) for v in rng.integers(1, most + 1, 2)] for most in (largest, 4))
            padding, ceil = [int(rng.integers(0, k // 2 + 1)) for k in kernel], bool(rng.integers(2))
            dilation = [int(v) for v in rng.integers(1, 4, 2)] if rng.random() < 0.3 else [1, 1]
            counted, mean = bool(rng.integers(2)), bool(rng.integers(2))
            text = f"{shape} {mean=} {kernel=} {stride=} {padding=} {ceil=} {dilation=} {counted=}"
            images = torch.from_numpy(data)
            try:
                if mean:
                    result = functional.avg_pool2d(images, kernel, stride, padding, ceil, counted)
                    options = {"count_include_pad": counted}
                else:
                    result = functional.max_pool2d(images, kernel, stride, padding, dilation, ceil)
                    options = {"dilation": dilation}
            except RuntimeError:
                continue  # no outputs
            operator = NN.avg_pool2d if mean else NN.max_pool2d
            value = operator(x, kernel, stride, padding, ceil_mode=ceil, **options)
            value = emit(value)
            # Of a last window that would start in the padding, PyTorch has no output.
            rows, columns = result.shape[2:]
            value = emit(relax.op.strided_slice(value, axes=[2, 3], begin=[0, 0], end=[rows, columns]))
            results.append(value)
            expected.append(result.numpy())
            told.append(text)
        return tuple(results)

    lowered = lower(body, *shape)
    assert not {"relax.nn.max_pool2d", "relax.nn.avg_pool2d"} & calls(lowered).keys()
    for ours, theirs, text in zip(run(lowered, data), expected, told, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=text)


@pytest.mark.host
def test_a_pool_hands_nan_on() -> None:
    """To all windows that hold it, and to no other."""
    data = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    data[0, 0, 1, 1], data[0, 0, 2, 2], data[0, 0, 2, 3] = np.nan, np.nan, np.nan

    def body(emit: Any, x: Any) -> Any:
        return (
            NN.max_pool2d(x, (2, 2), (2, 2)),
            NN.max_pool2d(x, (3, 3), padding=(1, 1)),
            emit(relax.op.max(x, [2, 3])),
        )

    images = torch.from_numpy(data)
    expected = functional.max_pool2d(images, 2), functional.max_pool2d(images, 3, 1, 1), images.amax((2, 3))
    for ours, theirs in zip(run(lower(body, *data.shape), data), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.host
def test_infinities() -> None:
    data = np.full((1, 2, 5, 5), -np.inf, np.float32)
    data[0, 1, 2, 2] = np.inf
    (found,) = run(lower(lambda emit, x: NN.max_pool2d(x, (3, 3), padding=(1, 1)), *data.shape), data)
    expected = nn.MaxPool2d(3, 1, 1)(torch.from_numpy(data)).numpy()
    np.testing.assert_array_equal(found, expected)
