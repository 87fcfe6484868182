"""Activations as kernels see them and, independently of that, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.values.workload import RELU, Activation, X

Array = NDArray[np.float64]


def clip(x: Activation, low: float, high: float) -> Activation:
    """The expression of a clip."""
    return Activation("minimum", (Activation("maximum", (x, low)), high))


def sigmoid(x: Array) -> Array:
    """Exact over all numbers."""
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, z) / (1 + z)


def silu(x: Array) -> Array:
    """Its limit at minus infinity, where the product has none."""
    return np.where(x == -np.inf, -0.0, x * sigmoid(x))


HARD_SIGMOID = Activation("multiply", (clip(Activation("add", (X, 3.0)), 0.0, 6.0), 1 / 6))
SIGMOID, SILU = Activation("sigmoid", (X,)), Activation("silu", (X,))
ACTIVATIONS: dict[str, tuple[Activation | None, Callable[[Array], Array]]] = {
    "none": (None, lambda x: x),
    "relu": (RELU, lambda x: np.maximum(x, 0)),
    "clip": (clip(X, -0.5, 0.75), lambda x: np.clip(x, -0.5, 0.75)),
    "clip above": (Activation("minimum", (X, 0.75)), lambda x: np.minimum(x, 0.75)),
    "leaky relu": (
        Activation("maximum", (Activation("multiply", (X, 0.1)), X)),
        lambda x: np.where(x < 0, 0.1 * x, x),
    ),
    "hard sigmoid": (HARD_SIGMOID, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "hard swish": (Activation("multiply", (X, HARD_SIGMOID)), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "sigmoid": (SIGMOID, sigmoid),
    "silu": (SILU, silu),
    "quotient": (
        Activation("divide", (Activation("subtract", (1.0, X)), Activation("add", (SILU, 4.0)))),
        lambda x: (1 - x) / (silu(x) + 4),
    ),
}
"""What layers may have behind them."""


def random_activation(rng: np.random.Generator) -> Activation | None:
    """One of them."""
    return list(ACTIVATIONS.values())[rng.integers(len(ACTIVATIONS))][0]


def activated(activation: Activation | None, x: Array) -> Any:
    """What the activation makes of `x`."""
    return next(function for expression, function in ACTIVATIONS.values() if expression == activation)(x)
