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
_ROUND_BITS = 0x4B400000
_ONE_BITS = 0x3F800000
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -125, 127
_NOTHING = -110.0
"""exp of this is zero, even times itself."""
_EVERYTHING = 89.0
"""exp of this is infinite."""


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


def _sigmoid(lanes: int, x: Expr) -> Expr:
    return _times_sigmoid(lanes, broadcast(T.float32(1), lanes), x)


def _silu(lanes: int, x: Expr) -> Expr:
    # Of minus infinity it is the limit, -0; whatever is below -110 gives that.
    return _times_sigmoid(lanes, named(lanes, T.max(broadcast(T.float32(_NOTHING), lanes), x)), x)


def _times_sigmoid(lanes: int, u: Expr, x: Expr) -> Expr:
    """u / (1 + exp(-x)), as u / (1 + z) or u * z / (1 + z) with z = exp(-|x|), which does not overflow.

    The error is at most 3 units in the last place also where u * z is tiny, for which u is multiplied first.
    """

    # -|x| by its sign bit.
    negative = from_float_bits(T.bitwise_or(float_bits(x, lanes), _integer(-(2**31), lanes)), lanes)
    e = named(lanes, T.max(_number(_NOTHING, lanes), negative))
    p, rest, scale = _powers(lanes, e, partial(named, lanes))
    small = T.Bind(T.Bind(T.Bind(u * p) * rest) * scale)
    return T.Select(x >= _number(0.0, lanes), u, small) / (p * scale + _number(1.0, lanes))


def exponential(lanes: int, x: Expr, bind: Callable[[Expr], Expr] | None = None) -> Expr:
    """exp(x) of float32 vectors of `lanes`, for all floats; `bind` gives a value a name, by default as `named`."""
    bind = bind or partial(named, lanes)
    e = bind(T.min(_number(_EVERYTHING, lanes), bind(T.max(_number(_NOTHING, lanes), x))))
    p, rest, scale = _powers(lanes, e, bind)
    return bind(bind(p * rest) * scale)


def _powers(lanes: int, e: Expr, bind: Callable[[Expr], Expr]) -> tuple[Expr, Expr, Expr]:
    """Three factors of exp(e): a number near 1, and two powers of 2, the first one 1 if the second can do alone."""

    def power(n: Expr) -> Expr:
        """2^n for integers from -126 to 127."""
        return bind(from_float_bits(T.shift_left(n, _integer(23, lanes)) + _integer(_ONE_BITS, lanes), lanes))

    # exp(e) = 2^n * exp(f): n from the bits of the sum, as TVM would simplify (sum + round) - round.
    rounded = bind(float_bits(e * _number(_LOG2_E, lanes) + _number(_ROUND, lanes), lanes))
    n = bind(from_float_bits(rounded, lanes) - _number(_ROUND, lanes))
    f = bind(bind(e - n * _number(_LN2[0], lanes)) - n * _number(_LN2[1], lanes))
    p = _number(_EXP[-1], lanes)
    for coefficient in _EXP[-2::-1]:
        p = bind(p * f + _number(coefficient, lanes))
    # 2^n in two parts, as it may be smaller than the smallest normal number, or a power more than the largest.
    whole = bind(rounded - _integer(_ROUND_BITS, lanes))
    first = bind(T.min(_integer(_LARGEST_EXPONENT, lanes), T.max(whole, _integer(_SMALLEST_EXPONENT, lanes))))
    return p, power(whole - first), power(first)


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
    "sigmoid": lambda lanes, x, bind: _number(1, lanes) / (exponential(lanes, -x, bind) + _number(1, lanes)),
}
"""Functions of TIR that are arithmetic here; called with the lanes, an operand, and what gives a value a name."""
