"""Finding activations: elementwise operators behind a layer that compute a function of its result alone.

lv1 = add(lv0, 3)
lv2 = clip(lv1, 0, 6)             Found(activation=multiply(x, multiply(minimum(maximum(add(x, 3), 0), 6), 0.167)),
lv3 = divide(lv2, 6)        ->          result=lv4, absorbed={lv0, lv1, lv2, lv3})
lv4 = multiply(lv0, lv3)

How a function is spelled, and how often its argument is read, does not matter: what counts is that nothing else reads
what is absorbed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pconvgen.matching.users import Users
from pconvgen.templates.activations import OPERATIONS
from pconvgen.tvm_compat.relax import Expr, Var, constant_value, dtype_of, op_name, scalar_value, shape_of, variables_of
from pconvgen.values.dtype import DType
from pconvgen.values.workload import Activation, X

MOST_OPERATIONS = 16
"""What an expression may have: all vectors of a tile compute it, each with code of its own."""


@dataclass(frozen=True, eq=False)
class Found:
    """An activation in the module.

    Attributes
    ----------
    activation: the function, `X` when it is the identity.
    result: the variable of its result.
    absorbed: the variables that vanish: its argument and what lies between that and the result.
    """

    activation: Activation
    result: Var
    absorbed: frozenset[Var]


def activation_of(users: Users, argument: Expr, claimed: set[Var]) -> Found | None:
    """The longest activation of the variable `argument` that nothing else reads, without what is `claimed`."""
    values = {argument: X}
    found, last, pending = None, argument, users.of(argument)
    while pending and last not in users.results:
        binding = pending.pop(0)
        expression = _expression(binding.value, values)
        if expression is None or binding.var in claimed or _size(expression) > MOST_OPERATIONS:
            break
        last = binding.var
        absorbed = frozenset(values)
        values[last] = expression
        pending = [user for user in users.of(*values) if user.var not in values]
        if not any(absorbed & set(variables_of(user.value)) for user in pending):
            found = Found(expression, last, absorbed)
    return found


def _size(expression: Activation) -> int:
    return 1 + sum(
        _size(operand) for operand in expression.operands if isinstance(operand, Activation) and operand != X
    )


def _expression(value: Expr, values: dict[Var, Activation]) -> Activation | None:
    """An operator on `values` and numbers as an expression; None for anything else."""
    name = op_name(value).removeprefix("relax.").removeprefix("nn.")
    if name not in OPERATIONS and name not in ("relu", "clip", "leakyrelu"):
        return None
    operands: list[Activation | float] = []
    for arg in value.args if name != "clip" else value.args[:1]:
        operand = _number(arg) if constant_value(arg) is not None else values.get(arg)
        # A constant of a higher rank gives the result that rank, too.
        if operand is None or (arg in values and shape_of(arg) != shape_of(value)):
            return None
        operands.append(operand)
    if name == "clip":
        operands += [_float32(scalar_value(bound)) for bound in value.args[1:]]
    if name == "leakyrelu":
        operands.append(_float32(value.attrs.alpha))
    valid = dtype_of(value) == DType.FLOAT32 and not any(isinstance(o, float) and math.isnan(o) for o in operands)
    return _simplified(name, *operands) if valid else None


def _float32(number: float) -> float:
    """The nearest float32, which may be infinite."""
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _number(constant: Expr) -> float | None:
    array = constant_value(constant)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _simplified(name: str, *operands: Activation | float) -> Activation | None:
    """What the operator computes in terms of OPERATIONS, one expression for some that are equal."""
    match name, operands:
        case "relu", (x,):
            return Activation("maximum", (x, 0.0))
        case "clip", (Activation() as x, float(low), float(high)):
            above = x if low == -math.inf else Activation("maximum", (x, low))
            return above if high == math.inf else Activation("minimum", (above, high))
        case "leakyrelu", (x, float(slope)):
            return Activation("maximum" if slope <= 1 else "minimum", (Activation("multiply", (x, slope)), x))
        case "add" | "multiply" | "minimum" | "maximum", (float(), Activation()):
            return _simplified(name, *operands[::-1])
        case "divide", (x, float(number)) if 1e-30 < abs(number) < 1e30:
            return _simplified("multiply", x, 1 / number)
        case "multiply", (_, float(number)) if number == 0:
            return None  # TVM would take it for zero, which it is not where x is NaN or infinite
        case "divide", (_, float()):
            return None  # TVM does not build code that divides by zero
        case "multiply", (x, Activation("sigmoid", (y,))) | (Activation("sigmoid", (y,)), x) if x == y:
            return Activation("silu", (x,))
    return Activation(name, operands)
