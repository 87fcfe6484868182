"""Activations on vectors in registers: straight-line arithmetic, without calls, for any number of lanes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pconvgen.tvm_compat.tir import Expr, T, broadcast, cast, element_of, float_bits, from_float_bits, number, ramp
from pconvgen.values.dtype import DType
from pconvgen.values.workload import Activation, X

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
_BIAS = 127
"""Of the exponent in a float's bits: those of 2^n are n + 127 above the 23 of the fraction, which are zero."""
_NOTHING, _EVERYTHING = -110.0, 89.0
"""exp of these is zero and infinite."""


_CHOOSING = {"x", "minimum", "maximum"}
"""Operations that round nothing and do not overflow."""


def activate(activation: Activation, x: Expr, lanes: int) -> Expr:
    """Emits `activation` of `x`, a vector of `lanes` (a scalar when that is 1), and returns its value.

    What does more than choose is computed in float32: float16 would overflow in the middle of some expressions.
    """
    element = element_of(x)
    if element != DType.FLOAT32 and not _chooses(activation):
        return cast(activate(activation, T.Bind(cast(x, "float32")), lanes), element)
    values: dict[Activation, Expr] = {X: x}

    def value(expression: Activation | float) -> Expr:
        if isinstance(expression, float):
            return number(expression, element, lanes)
        if expression not in values:
            operands = [value(operand) for operand in expression.operands]
            values[expression] = T.Bind(OPERATIONS[expression.name](lanes, *operands))
        return values[expression]

    return value(activation)


def _chooses(expression: Activation | float) -> bool:
    return isinstance(expression, float) or (expression.name in _CHOOSING and all(map(_chooses, expression.operands)))


def named(lanes: int, value: Expr) -> Expr:
    """A vector of `lanes` under a name that TVM's passes keep.

    What is only bound they write again wherever it is used, so that names of names make expressions of exponential
    size. Memory they leave alone; LLVM makes it a register.
    """
    memory, place = T.alloc_buffer((lanes,), element_of(value)), ramp(0, lanes)
    T.buffer_store(memory, value, [place])
    return T.Bind(memory[place])


Bind = Callable[[Expr], Expr]


def _sigmoid(lanes: int, x: Expr, bind: Bind | None = None) -> Expr:
    """1 / (1 + exp(-x)), within 3 units in the last place: where exp is infinite, the result is denormal."""
    bind = bind or partial(named, lanes)
    # exp of -88 is zero here, and of 89 infinite.
    p, shifted = _powers(lanes, -_clamped(lanes, x, -89.0, 88.0, bind), _BIAS, bind)
    return _number(1.0, lanes) / (p * _power(shifted, lanes) + _number(1.0, lanes))


def _silu(lanes: int, x: Expr) -> Expr:
    """x / (1 + exp(-x)), within 3 units in the last place also where exp(-x) is larger than any float.

    So numerator and denominator are 2^7 times smaller, of numbers up to 83, from where on it is x.
    """
    bind, small = partial(named, lanes), 7
    # exp of -83 / 2^7 is zero here, and of 93.5 infinite, with the limit of minus infinity, -0.
    low = bind(T.max(_number(-93.5, lanes), x))
    e = bind(T.min(_number(83.0, lanes), low))
    p, shifted = _powers(lanes, -e, _BIAS - small, bind)
    quotient = bind(e / (p * _power(shifted, lanes) + _number(2.0**-small, lanes)))
    # The difference is +0 up to 83, so that -0 stays.
    return bind(quotient * _number(2.0**-small, lanes)) - bind(e - low)


def exponential(lanes: int, x: Expr, bind: Bind | None = None) -> Expr:
    """exp(x) of float32 vectors of `lanes`, for all floats; `bind` gives a value a name, by default as `named`."""
    bind = bind or partial(named, lanes)
    p, shifted = _powers(lanes, _clamped(lanes, x, _NOTHING, _EVERYTHING, bind), 2 * _BIAS, bind)
    # 2^n in two halves, as it may be a power more than the largest float.
    half = bind(T.shift_right(shifted, _integer(1, lanes)))
    return bind(bind(p * _power(half, lanes)) * _power(bind(shifted - half), lanes))


def exponential_to_1(lanes: int, x: Expr) -> Expr:
    """exp(x) of float32 vectors of `lanes` that are not positive, or NaN."""
    bind = partial(named, lanes)
    # exp of -88 is zero here.
    p, shifted = _powers(lanes, bind(T.max(_number(-88.0, lanes), x)), _BIAS, bind)
    return bind(p * _power(shifted, lanes))


def _powers(lanes: int, e: Expr, bias: int, bind: Bind) -> tuple[Expr, Expr]:
    """exp(e) = p * 2^n: p, a number near 1, and n + bias in the lowest nine bits of an integer."""
    # n from the bits of the sum, as TVM would simplify (sum + round) - round.
    round_ = _number(_ROUND + bias, lanes)
    shifted = bind(float_bits(e * _number(_LOG2_E, lanes) + round_, lanes))
    n = bind(from_float_bits(shifted, lanes) - round_)
    f = bind(bind(e - n * _number(_LN2[0], lanes)) - n * _number(_LN2[1], lanes))
    p = _number(_EXP[-1], lanes)
    for coefficient in _EXP[-2::-1]:
        p = bind(p * f + _number(coefficient, lanes))
    return p, shifted


def _power(shifted: Expr, lanes: int) -> Expr:
    """2^n of n + 127 in the lowest nine bits of an integer: zero for n of -127, infinite for 128."""
    return from_float_bits(T.shift_left(shifted, _integer(23, lanes)), lanes)


def _clamped(lanes: int, x: Expr, low: float, high: float, bind: Bind) -> Expr:
    return bind(T.min(_number(high, lanes), bind(T.max(_number(low, lanes), x))))


def _number(value: float, lanes: int) -> Expr:
    return broadcast(T.float32(value), lanes)


def _integer(value: int, lanes: int) -> Expr:
    return broadcast(T.int32(value), lanes)


OPERATIONS: dict[str, Callable[..., Expr]] = {
    "add": lambda _, a, b: a + b,
    "subtract": lambda _, a, b: a - b,
    "multiply": lambda _, a, b: a * b,
    "divide": lambda _, a, b: a / b,
    "minimum": lambda _, a, b: T.min(a, b),
    "maximum": lambda _, a, b: T.max(a, b),
    "sigmoid": _sigmoid,
    "silu": _silu,
}
"""What an activation is made of, each by the last part of Relax's name for it; called with the lanes and operands.

A row here is all it takes for the passes to fuse one more operator of Relax.
"""


ELEMENTARY: dict[str, Callable[..., Expr]] = {
    "exp": exponential,
    "sigmoid": _sigmoid,
}
"""Functions of TIR that are arithmetic here; called with the lanes, an operand, and what gives a value a name."""
