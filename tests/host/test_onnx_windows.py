"""Convolutions and pooling of ONNX with every way to pad, against onnxruntime."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pconvgen
from pconvgen.errors import PconvgenError
from tests.nodes import Node, differing, write

pytestmark = pytest.mark.host

CHANNELS = 4
SIZES = [(10,), (7,), (10, 7), (9, 11), (5, 6, 7)]
INPUTS = {
    f"x{'x'.join(map(str, size))}": np.random.default_rng(0).standard_normal((1, CHANNELS, *size)).astype("f")
    for size in SIZES
}
AUTO_PADS = ["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]


def attributes(rng: random.Random, dims: int) -> dict[str, Any]:
    """A window with some padding."""
    kernel = [rng.randint(1, 4) for _ in range(dims)]
    mode = rng.choice(AUTO_PADS)
    strides = [rng.randint(1, size if mode.startswith("SAME") else 3) for size in kernel]
    if mode != "NOTSET":
        return {"kernel_shape": kernel, "strides": strides, "auto_pad": mode}
    return {"kernel_shape": kernel, "strides": strides, "pads": [rng.randrange(size) for size in kernel + kernel]}


def pool(rng: random.Random, name: str) -> Node:
    dims = INPUTS[name].ndim - 2
    operator, given = rng.choice(["MaxPool", "AveragePool", "LpPool"]), attributes(rng, dims)
    if not given.get("auto_pad", "").startswith("SAME"):
        given["dilations"] = [rng.randint(1, 2) for _ in range(dims)]
    given["ceil_mode"] = rng.randrange(2)
    if operator == "AveragePool":
        given["count_include_pad"] = rng.randrange(2)
    if operator == "LpPool":
        given["p"] = rng.randint(1, 2)
    return Node(operator, (name,), given)


def convolution(rng: random.Random, name: str) -> Node:
    dims, groups = INPUTS[name].ndim - 2, rng.choice([1, 2, CHANNELS])
    operator, given = rng.choice(["Conv", "ConvTranspose"]), {**attributes(rng, dims), "group": groups}
    if operator == "ConvTranspose" and rng.randrange(3) == 0:
        given["output_padding"] = [rng.randrange(stride) for stride in given["strides"]]
    if not given.get("auto_pad", "").startswith("SAME"):
        given["dilations"] = [rng.randint(1, 2) for _ in range(dims)]
        if operator == "ConvTranspose" and rng.randrange(3) == 0:
            rows = zip(INPUTS[name].shape[2:], given["strides"], given["kernel_shape"], strict=True)
            given["output_shape"] = [(size - 1) * stride + rng.randint(1, taps) for size, stride, taps in rows]
            given.pop("pads", None)
    values = np.random.default_rng(rng.randrange(100))
    weight = values.standard_normal((CHANNELS, CHANNELS // groups, *given["kernel_shape"])).astype("f")
    bias = [values.standard_normal(CHANNELS).astype("f")] if rng.randrange(2) else []
    return Node(operator, (name, weight, *bias), given)


def check(make: Any, seed: int, count: int, path: Path) -> None:
    rng = random.Random(seed)
    nodes = {}
    for index in range(count):
        node = make(rng, rng.choice(list(INPUTS)))
        nodes[f"{index} {node.operator} {node.inputs[0]} {node.attributes}"] = node
    assert not differing(nodes, INPUTS, path)


@pytest.mark.parametrize("make", [pool, convolution])
def test_random_windows(make: Any, tmp_path: Path) -> None:
    check(make, 0, 60, tmp_path / "m.onnx")


@pytest.mark.long
@pytest.mark.parametrize("make", [pool, convolution])
@pytest.mark.parametrize("seed", range(1, 9))
def test_more_random_windows(make: Any, seed: int, tmp_path: Path) -> None:
    check(make, seed, 100, tmp_path / "m.onnx")


def test_auto_pad_where_the_stride_does_not_divide_the_size(tmp_path: Path) -> None:
    nodes = {
        f"{operator} {name} {mode}": Node(
            operator, (name,), {"kernel_shape": [size] * dims, "strides": [2] * dims, "auto_pad": mode}
        )
        for operator in ("MaxPool", "AveragePool", "LpPool")
        for name, size, dims in (("x10x7", 2, 2), ("x9x11", 3, 2), ("x7", 2, 1), ("x5x6x7", 3, 3))
        for mode in ("SAME_LOWER", "SAME_UPPER", "VALID")
    }
    assert not differing(nodes, INPUTS, tmp_path / "m.onnx")


SAME = {"auto_pad": "SAME_LOWER"}
WEIGHT = np.ones((CHANNELS, 1, 3, 1), "f")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("MaxPool", ("x10x7",), {"kernel_shape": [2, 2], "dilations": [1, 2], **SAME}), "dilated pooling"),
        (Node("MaxPool", ("x9x11",), {"kernel_shape": [2, 1], "strides": [1, 4], **SAME}), "leave much out"),
        (Node("MaxPool", ("x9x11",), {"kernel_shape": [2, 2]}, 2), "indices of a max pooling"),
        (Node("ConvTranspose", ("x9x11", WEIGHT), {"strides": [2, 2], **SAME}), "between the windows"),
    ],
)
def test_what_runtimes_disagree_on_is_refused_with_the_layer(node: Node, message: str, tmp_path: Path) -> None:
    write({"the node": node}, INPUTS, tmp_path / "m.onnx", 20)
    with pytest.raises(PconvgenError, match=message) as error:
        pconvgen.compile(tmp_path / "m.onnx")
    assert error.value.layer == "the node"
