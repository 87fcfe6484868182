"""Activations on vectors in registers: straight-line arithmetic, without calls, for any number of lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pconvgen.tvm_compat import T, broadcast, float_bits, from_float_bits
from pconvgen.workload import Activation, X

_LOG2_E = 1.4426950408889634
_LN2 = (0.693359375, -2.12194440e-4)
"""ln(2) as a sum, the first number with so few bits that its products with small integers are exact."""
_EXP = (
    1.0,
    1.0,
    0.49999994039535522,
    0.16666430234909058,
    0.041668005287647247,
    0.0083741955459117889,
    0.0013843607157468796,
)
"""exp(f) for |f| <= ln(2) / 2, lowest power first; minimax of the relative error, 2e-9, with the first one fixed."""
_ROUND = 1.5 * 2.0**23
"""A float of this size has no bits behind the point: adding it rounds, and leaves the integer in the lowest bits."""
_ROUND_BITS = 0x4B400000
_ONE_BITS = 0x3F800000
_SMALLEST_EXPONENT = -125
_NOTHING = -110.0
"""exp of this is zero, even times itself."""


def activate(activation: Activation, x: Any, lanes: int) -> Any:
    """Emits `activation` of `x`, a float32 vector of `lanes` (a scalar when that is 1), and returns its value."""
    values: dict[Activation, Any] = {X: x}

    def value(expression: Activation | float) -> Any:
        if isinstance(expression, float):
            return broadcast(T.float32(expression), lanes)
        if expression not in values:
            operands = [value(operand) for operand in expression.operands]
            values[expression] = T.Bind(OPERATIONS[expression.name](lanes, *operands))
        return values[expression]

    return value(activation)


def _sigmoid(lanes: int, x: Any) -> Any:
    return _times_sigmoid(lanes, broadcast(T.float32(1), lanes), x)


def _silu(lanes: int, x: Any) -> Any:
    # Of minus infinity it is the limit, -0; whatever is below -110 gives that.
    return _times_sigmoid(lanes, T.Bind(T.max(broadcast(T.float32(_NOTHING), lanes), x)), x)


def _times_sigmoid(lanes: int, u: Any, x: Any) -> Any:
    """u / (1 + exp(-x)), as u / (1 + z) or u * z / (1 + z) with z = exp(-|x|), which does not overflow.

    The error is at most 3 units in the last place also where u * z is tiny, for which u is multiplied first.
    """

    def number(value: float) -> Any:
        return broadcast(T.float32(value), lanes)

    def integer(value: int) -> Any:
        return broadcast(T.int32(value), lanes)

    def power(n: Any) -> Any:
        """2^n for integers from -126 to 127."""
        return T.Bind(from_float_bits(T.shift_left(n, integer(23)) + integer(_ONE_BITS), lanes))

    # -|x| by its sign bit; the constant comes first in `max` as the second is the answer when one is NaN.
    negative = from_float_bits(T.bitwise_or(float_bits(x, lanes), integer(-(2**31))), lanes)
    e = T.Bind(T.max(number(_NOTHING), negative))
    # exp(e) = 2^n * exp(f): n from the bits of the sum, as TVM would simplify (sum + round) - round.
    rounded = T.Bind(float_bits(e * number(_LOG2_E) + number(_ROUND), lanes))
    n = T.Bind(from_float_bits(rounded, lanes) - number(_ROUND))
    f = T.Bind(T.Bind(e - n * number(_LN2[0])) - n * number(_LN2[1]))
    p = number(_EXP[-1])
    for coefficient in _EXP[-2::-1]:
        p = T.Bind(p * f + number(coefficient))
    # 2^n in two parts, as it may be smaller than the smallest normal number.
    whole = T.Bind(rounded - integer(_ROUND_BITS))
    first = T.Bind(T.max(whole, integer(_SMALLEST_EXPONENT)))
    scale, rest = power(first), power(whole - first)
    small = T.Bind(T.Bind(T.Bind(u * p) * rest) * scale)
    return T.Select(x >= number(0.0), u, small) / (p * scale + number(1.0))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda _, a, b: a + b,
    "subtract": lambda _, a, b: a - b,
    "multiply": lambda _, a, b: a * b,
    "divide": lambda _, a, b: a / b,
    # Numbers are second operands, and the second argument of T.max is the answer when one is NaN.
    "minimum": lambda _, a, b: T.min(b, a),
    "maximum": lambda _, a, b: T.max(b, a),
    "sigmoid": _sigmoid,
    "silu": _silu,
}
"""What an activation is made of, each by the last part of Relax's name for it; called with the lanes and operands.

A row here is all it takes for the passes to fuse one more operator of Relax.
"""
