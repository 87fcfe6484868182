"""Normalisation and reductions of ONNX files compute what onnxruntime computes, also of large means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.nodes import Node, differing

pytestmark = pytest.mark.host

RNG = np.random.default_rng(0)
SHAPE = (2, 6, 5, 7)


def _numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _axes(*axes: int) -> np.ndarray:
    return np.array(axes)


AFFINE = _numbers(6), _numbers(6)
REDUCTIONS = ("L1", "L2", "LogSumExp", "Mean", "Sum", "SumSquare")
NORMS = {
    "instances": Node("InstanceNormalization", ("x", *AFFINE)),
    "instances with epsilon": Node("InstanceNormalization", ("x", *AFFINE), {"epsilon": 0.3}),
    "instances in a row": Node("InstanceNormalization", ("rows", *AFFINE)),
    "groups": Node("GroupNormalization", ("x", *AFFINE), {"num_groups": 3}),
    "all": Node("GroupNormalization", ("x", *AFFINE), {"num_groups": 1, "epsilon": 0.2}),
    "layer": Node("LayerNormalization", ("x", _numbers(7))),
    "layer with statistics": Node("LayerNormalization", ("x", _numbers(7), _numbers(7)), {"epsilon": 0.1}, 3),
    "layer of planes": Node("LayerNormalization", ("x", _numbers(5, 7), _numbers(5, 7)), {"axis": 2}, 3),
    "layer of images": Node("LayerNormalization", ("x", _numbers(6, 5, 7)), {"axis": 1}),
    "layer of rows": Node("LayerNormalization", ("rows", _numbers(35)), {"axis": -1}),
    "root mean square": Node("RMSNormalization", ("x", _numbers(7)), {"epsilon": 0.1}),
    "mean and variance": Node("MeanVarianceNormalization", ("x",)),
    "mean and variance of planes": Node("MeanVarianceNormalization", ("x",), {"axes": [2, 3]}),
    "mean and variance of channels": Node("MeanVarianceNormalization", ("x",), {"axes": [1]}),
    "mean and variance of all": Node("MeanVarianceNormalization", ("x",), {"axes": [0, 1, 2, 3]}),
}


def test_norms(tmp_path: Path) -> None:
    x = _numbers(*SHAPE)
    inputs = {"x": x, "rows": x.reshape(2, 6, 35)}
    assert not differing(NORMS, inputs, tmp_path / "m.onnx", 23)


def test_scales_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of opset 18, which onnx's checker does not like any more."""
    monkeypatch.setattr(onnx.checker, "check_model", lambda _: None)
    nodes = {"groups": Node("GroupNormalization", ("x", _numbers(3), _numbers(3)), {"num_groups": 3})}
    assert not differing(nodes, {"x": _numbers(*SHAPE)}, tmp_path / "m.onnx", 18)


def test_reductions(tmp_path: Path) -> None:
    nodes = {
        f"{name} {axes}": Node(f"Reduce{name}", ("x", _axes(*axes)), {"keepdims": len(axes) % 2})
        for name in REDUCTIONS
        for axes in ((2, 3), (1,), (0, 3), (3,))
    }
    assert not differing(nodes, {"x": _numbers(*SHAPE)}, tmp_path / "m.onnx")


def test_batch_norm_without_running_statistics(tmp_path: Path) -> None:
    """What takes them as it goes is in training mode, and may give running ones."""
    attributes = {"training_mode": 1, "epsilon": 0.1, "momentum": 0.7}
    nodes = {"norm": Node("BatchNormalization", ("x", *AFFINE, "mean", "variance"), attributes, 3)}
    inputs = {"x": _numbers(*SHAPE), "mean": _numbers(6), "variance": np.abs(_numbers(6))}
    assert not differing(nodes, inputs, tmp_path / "m.onnx")
