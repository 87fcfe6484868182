"""Which functions of a layer's result its kernel takes over, however they are spelled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from tvm import relax

from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.values.workload import RELU, Activation, Epilogue, X
from tests.activations import ACTIVATIONS, HARD_SIGMOID, SIGMOID, SILU, clip
from tests.relax_modules import BIAS, NN, calls, conv, lower, module_of, weight

OP = relax.op
Body = Callable[[Any, Any], Any]


def number(value: float, *shape: int) -> Any:
    return relax.const(np.full(shape, value, np.float32))


def behind_layers(function: Body) -> list[tuple[Body, tuple[int, ...], dict[str, int]]]:
    """`function(emit, y)` behind a convolution with a bias and behind a linear layer, and what these become."""

    def convolution(emit: Any, x: Any) -> Any:
        return function(emit, emit(OP.add(emit(conv(x)), BIAS)))

    def linear(emit: Any, x: Any) -> Any:
        return function(emit, emit(OP.matmul(x, weight(6, 5))))

    return [(convolution, (1, 3, 8, 8), {"pixel": 1, "pack": 1}), (linear, (2, 6), {"channel": 1})]


def activation_of(body: Body, shape: tuple[int, ...]) -> Activation | None:
    (fused_op,) = find_fused_ops(module_of(body, *shape))
    return fused_op.workload.epilogue.activation


def gate(emit: Any, y: Any) -> Any:
    return OP.clip(emit(OP.add(y, number(3))), 0, 6)


def two_clips(emit: Any, y: Any) -> Any:
    low = emit(OP.clip(emit(OP.add(number(3), y)), 0, float("inf")))
    return OP.clip(low, float("-inf"), 6)


def relu6(emit: Any, y: Any) -> Any:
    return OP.minimum(emit(NN.relu(emit(OP.add(y, number(3))))), number(6, 1))


SHIFTED = clip(Activation("add", (X, 3.0)), 0.0, 6.0)
SPELLINGS: dict[str, tuple[Body, Activation | None]] = {
    "relu": (lambda emit, y: NN.relu(y), RELU),
    "maximum": (lambda emit, y: OP.maximum(number(0), y), RELU),
    "clip": (lambda emit, y: OP.clip(y, -1, 6), clip(X, -1.0, 6.0)),
    "nothing": (lambda emit, y: OP.clip(y, float("-inf"), float("inf")), None),
    "clip at the largest float": (lambda emit, y: OP.clip(y, -1e39, 0.5), Activation("minimum", (X, 0.5))),
    "leaky relu": (
        lambda emit, y: NN.leakyrelu(y, 0.25),
        Activation("maximum", (Activation("multiply", (X, 0.25)), X)),
    ),
    "leaky relu as a maximum": (
        lambda emit, y: OP.maximum(emit(OP.multiply(number(0.25), y)), y),
        Activation("maximum", (Activation("multiply", (X, 0.25)), X)),
    ),
    "steep leaky relu": (
        lambda emit, y: NN.leakyrelu(y, 2.0),
        Activation("minimum", (Activation("multiply", (X, 2.0)), X)),
    ),
    "sigmoid": (lambda emit, y: OP.sigmoid(y), SIGMOID),
    "silu": (lambda emit, y: NN.silu(y), SILU),
    "silu as a product": (lambda emit, y: OP.multiply(y, emit(OP.sigmoid(y))), SILU),
    "silu, gate first": (lambda emit, y: OP.multiply(emit(OP.sigmoid(y)), y), SILU),
    "hard sigmoid": (lambda emit, y: OP.divide(emit(gate(emit, y)), number(6)), HARD_SIGMOID),
    "hard sigmoid, two clips": (lambda emit, y: OP.divide(emit(two_clips(emit, y)), number(6)), HARD_SIGMOID),
    "hard sigmoid, relu": (lambda emit, y: OP.divide(emit(relu6(emit, y)), number(6, 1, 1)), HARD_SIGMOID),
    "hard sigmoid of ONNX": (
        lambda emit, y: OP.clip(emit(OP.add(emit(OP.multiply(number(0.25), y)), number(0.5))), 0, 1),
        clip(Activation("add", (Activation("multiply", (X, 0.25)), 0.5)), 0.0, 1.0),
    ),
    "hard swish": (
        lambda emit, y: OP.multiply(y, emit(OP.divide(emit(gate(emit, y)), number(6)))),
        Activation("multiply", (X, HARD_SIGMOID)),
    ),
    "hard swish, divided last": (
        lambda emit, y: OP.divide(emit(OP.multiply(y, emit(gate(emit, y)))), number(6)),
        Activation("multiply", (Activation("multiply", (X, SHIFTED)), 1 / 6)),
    ),
    "a number minus it": (lambda emit, y: OP.subtract(number(1), y), Activation("subtract", (1.0, X))),
    "twice": (lambda emit, y: OP.add(y, y), Activation("add", (X, X))),
    "a number over it": (lambda emit, y: OP.divide(number(2), y), Activation("divide", (2.0, X))),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_fused(name: str) -> None:
    function, expected = SPELLINGS[name]
    for body, shape, kernels in behind_layers(function):
        assert activation_of(body, shape) == expected
        assert calls(lower(body, *shape)) == Counter(kernels)


def attention(emit: Any, y: Any) -> Any:
    """Nothing may be absorbed: the pool reads the value."""
    pooled = emit(NN.adaptive_avg_pool2d(y, (1, 1)))
    return OP.multiply(y, emit(OP.sigmoid(pooled)))


UNFUSED: dict[str, Body] = {
    "unknown operator": lambda emit, y: OP.tanh(y),
    "another tensor": lambda emit, y: OP.multiply(y, emit(NN.relu(emit(NN.max_pool2d(y))))),
    "division by zero": lambda emit, y: OP.divide(y, number(0)),
    "a number that is none": lambda emit, y: OP.clip(y, float("nan"), 6),
    "one number per channel": lambda emit, y: OP.multiply(y, weight(1, 4, 1, 1)),
    "a constant of higher rank": lambda emit, y: OP.multiply(y, number(2, 1, 1, 1, 1, 1)),
    "other types": lambda emit, y: OP.astype(y, "float16"),
    "attention": attention,
    "never one value": lambda emit, y: (NN.relu(y), OP.sigmoid(y)),
    "half of a product": lambda emit, y: OP.multiply(emit(OP.sigmoid(y)), emit(OP.tanh(y))),
}


@pytest.mark.parametrize("name", UNFUSED)
def test_what_is_no_function_of_one_value_stays(name: str) -> None:
    body = behind_layers(UNFUSED[name])[0][0]
    (fused_op,) = find_fused_ops(module_of(body))
    assert fused_op.workload.epilogue == Epilogue(bias=True)
    lowered = calls(lower(body))
    assert lowered["pixel"] == 1
    assert lowered["pointwise"] or any(operator.startswith("relax.") for operator in lowered)


def test_a_function_ends_where_something_else_reads_it() -> None:
    def residual(emit: Any, x: Any) -> Any:
        y = emit(conv(x, filters=3))
        return NN.relu(emit(OP.add(emit(OP.multiply(y, emit(OP.sigmoid(y)))), x)))

    def returned(emit: Any, x: Any) -> Any:
        middle = emit(NN.silu(emit(conv(x, filters=3))))
        return middle, NN.relu(middle)

    def read_inside(emit: Any, x: Any) -> Any:
        y = emit(NN.silu(emit(conv(x, filters=3))))
        half = emit(OP.multiply(y, number(0.5)))
        return OP.add(emit(OP.multiply(y, half)), emit(NN.max_pool2d(half)))

    def late(emit: Any, x: Any) -> Any:
        y = emit(NN.silu(emit(conv(x, filters=3))))
        return OP.multiply(emit(OP.multiply(y, number(0.5))), emit(OP.tanh(y)))

    for body in (residual, returned, read_inside, late):
        assert activation_of(body, (1, 3, 8, 8)) == SILU, body
        assert calls(lower(body))["pixel"] == 1


def test_two_layers_do_not_take_the_same_operators() -> None:
    def body(emit: Any, x: Any) -> Any:
        first = emit(NN.silu(emit(conv(x))))
        second = emit(conv(x))
        return OP.multiply(emit(NN.relu(emit(OP.add(first, second)))), number(0.5))

    first, second = find_fused_ops(module_of(body))
    assert first.workload.epilogue == Epilogue(activation=SILU)
    assert second.workload.epilogue == Epilogue(residual=True, activation=Activation("multiply", (RELU, 0.5)))
    assert second.residual.same_as(first.result)
    assert not first.absorbed & second.absorbed


def test_long_expressions_end() -> None:
    def longer(emit: Any, x: Any) -> Any:
        y = emit(conv(x))
        for _ in range(40):
            y = emit(OP.multiply(y, emit(OP.add(y, number(1)))))
        return y

    (fused_op,) = find_fused_ops(module_of(longer))
    assert fused_op.workload.epilogue.activation is not None
    assert len(str(fused_op.workload.epilogue.activation)) < 500
    assert calls(lower(longer))["relax.multiply"] > 30


def test_activations_print_and_serialise() -> None:
    activation = Activation("multiply", (X, HARD_SIGMOID))
    assert str(activation) == "multiply(x, multiply(minimum(maximum(add(x, 3), 0), 6), 0.166667))"
    for found, _ in ACTIVATIONS.values():
        epilogue = asdict(Epilogue(True, True, found))
        assert json.loads(json.dumps(epilogue, allow_nan=False)).keys() == epilogue.keys()
