"""Finding elementwise arithmetic on activations that no layer absorbs.

lv0 = multiply(x, gate[n, c, 1, 1])        Pointwise(result=lv2, data=x, scale=gate, shift=None, other=y,
lv1 = add(lv0, y)                  ->                activation=RELU, absorbed={lv0, lv1})
lv2 = relu(lv1)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pconvgen.matching.activations import activation_of
from pconvgen.matching.users import Users
from pconvgen.tvm_compat.relax import Binding, Expr, Var, constant_value, dtype_of, is_op, shape_of
from pconvgen.values.dtype import DType
from pconvgen.values.workload import Activation, X


@dataclass(frozen=True, eq=False)
class Pointwise:
    """activation(data * scale + shift + other), of tensors [n, c, h, w].

    Attributes
    ----------
    result: variable of the last operation; it is replaced.
    data: a variable.
    scale: expression [n or 1, c, 1, 1], None for none.
    shift: constant of c numbers, None for none.
    other: variable of the data's shape that is added, None for none.
    activation: of the sum, None for nothing.
    absorbed: variables that vanish, `result` not among them.
    """

    result: Var
    data: Expr
    scale: Expr | None = None
    shift: Expr | None = None
    other: Expr | None = None
    activation: Activation | None = None
    absorbed: frozenset[Var] = frozenset()


def find_pointwise(users: Users, claimed: set[Var]) -> list[Pointwise]:
    """The chains of "main" outside of `claimed`, to which their variables are added, in program order."""
    found = []
    for binding in users.bindings:
        if binding.var not in claimed and (chain := _begin(binding)) is not None:
            chain = _end(users, chain, claimed)
            claimed |= {chain.result, *chain.absorbed}
            found.append(chain)
    return found


def _begin(binding: Binding) -> Pointwise | None:
    """The chain that a binding begins: a product with a number for each channel, or a sum of two tensors."""
    value, shape = binding.value, shape_of(binding.var)
    if not is_op(value, "relax.multiply", "relax.add") or shape is None or len(shape) != 4:
        return None
    if dtype_of(value) != DType.FLOAT32 or max(shape[2:]) == 1:
        return None
    for data, other in (value.args, value.args[::-1]):
        if constant_value(data) is not None or shape_of(data) != shape:
            continue
        if is_op(value, "relax.multiply") and _per_channel(other, shape):
            return Pointwise(binding.var, data, scale=other)
        if is_op(value, "relax.add") and constant_value(other) is None and shape_of(other) == shape:
            return Pointwise(binding.var, data, other=other)
        if is_op(value, "relax.add") and constant_value(other) is not None and _per_channel(other, shape):
            return Pointwise(binding.var, data, shift=other)
    return None


def _end(users: Users, chain: Pointwise, claimed: set[Var]) -> Pointwise:
    """With the additions and the activation that follow."""
    shape = shape_of(chain.result) or ()
    while (user := users.only(chain.result)) is not None and user.var not in claimed and is_op(user.value, "relax.add"):
        first, second = user.value.args
        other = second if first.same_as(chain.result) else first
        if chain.shift is None and chain.other is None and constant_value(other) is not None:
            if not _per_channel(other, shape):
                break
            chain = replace(chain, shift=other)
        elif chain.other is None and constant_value(other) is None and shape_of(other) == shape:
            chain = replace(chain, other=other)
        else:
            break
        chain = replace(chain, result=user.var, absorbed=chain.absorbed | {chain.result})
    found = activation_of(users, chain.result, claimed)
    if found is None:
        return chain
    activation = None if found.activation == X else found.activation
    return replace(chain, result=found.result, activation=activation, absorbed=chain.absorbed | found.absorbed)


def _per_channel(expr: Expr, shape: tuple[int, ...]) -> bool:
    """Whether an expression has one number for each channel, or for each channel of each image."""
    own = shape_of(expr)
    return own is not None and dtype_of(expr) == DType.FLOAT32 and own in ((1, shape[1], 1, 1), (*shape[:2], 1, 1))
