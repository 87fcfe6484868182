"""Operators of ONNX that networks use now and then, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pconvgen
from pconvgen.errors import PconvgenError
from tests.nodes import Node, differing, write

pytestmark = pytest.mark.host

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 8, 4, 6)).astype("f")
X[0, :, 1] = 0
INPUTS = {
    "x": X,
    "positive": np.abs(X) + np.float32(0.1),
    "integers": RNG.integers(-9, 9, (1, 8, 4, 6)),
    "counts": RNG.integers(1, 5, (1, 8, 4, 6)),
}


def number(value: float, dtype: str = "float32") -> np.ndarray:
    return np.array(value, dtype)


BOUNDS = [(0.5, -0.5), (0, -1), (0, np.inf), (-1, np.inf), (-np.inf, 0.5), (np.nan, 0.5), (0.2, 0.3)]
NODES = {
    **{
        f"depth to space {mode}": Node("DepthToSpace", ("x",), {"blocksize": 2, "mode": mode})
        for mode in ("DCR", "CRD")
    },
    "space to depth": Node("SpaceToDepth", ("x",), {"blocksize": 2}),
    **{f"clip {low} {high}": Node("Clip", ("x", number(low), number(high))) for low, high in BOUNDS},
    "celu": Node("Celu", ("x",), {"alpha": 0.7}),
    **{f"power {exponent}": Node("Pow", ("positive", number(exponent))) for exponent in (-1, 0, 0.5, 1.5)},
    **{f"whole power {exponent}": Node("Pow", ("x", number(exponent, "int64"))) for exponent in (0, 1, 2, 3, 4)},
    "negative whole power": Node("Pow", ("positive", number(-1, "int32"))),
    "power of more axes": Node("Pow", ("x", np.full((1, 1, 1, 1, 1), 2, "int32"))),
    "powers": Node("Pow", ("x", "counts")),
    "power of integers": Node("Pow", ("integers", number(2))),
    **{
        f"normalised {p} {axis}": Node("LpNormalization", ("x",), {"p": p, "axis": axis})
        for p in (1, 2)
        for axis in (-1, 1, 2)
    },
    "fmod": Node("Mod", ("x", "positive"), {"fmod": 1}),
    "mod": Node("Mod", ("integers", "counts")),
    **{
        f"{operator} {name}, no axes": Node(operator, (name,), {"noop_with_empty_axes": 1})
        for operator in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceSum")
        for name in ("x", "positive")
    },
    "ReduceLogSum, no axes": Node("ReduceLogSum", ("positive",), {"noop_with_empty_axes": 1}),
    "ReduceLogSum": Node("ReduceLogSum", ("positive",)),
    "dropout": Node("Dropout", ("x", number(0.7)), {}, 2),
    "dropout, evaluated": Node("Dropout", ("x", number(0.7), np.array(False))),
}


def test_operators(tmp_path: Path) -> None:
    assert not differing(NODES, INPUTS, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("Dropout", ("x", number(0.7), np.array(True))), "training_mode"),
        (Node("Pow", ("integers", "counts")), "powers of int64"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_layer(node: Node, message: str, tmp_path: Path) -> None:
    write({"the node": node}, INPUTS, tmp_path / "m.onnx", 20)
    with pytest.raises(PconvgenError, match=message) as error:
        pconvgen.compile(tmp_path / "m.onnx")
    assert error.value.layer == "the node"
