"""Finding normalisation of images: over the pixels of groups of channels, with an activation behind it.

lv0 = group_norm(x, scale, shift, num_groups=8)      Norm(result=lv1, data=x, groups=8, joint=False, scale, shift,
lv1 = silu(lv0)                                ->         epsilon=1e-5, activation=SILU, absorbed={lv0})
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pconvgen.matching.activations import activation_of
from pconvgen.matching.users import Users
from pconvgen.tvm_compat.relax import Expr, Var, constant_value, dtype_of, is_op, shape_of
from pconvgen.values.dtype import DType
from pconvgen.values.workload import Activation, X


@dataclass(frozen=True, eq=False)
class Norm:
    """(data - mean) / sqrt(variance + epsilon) * scale + shift, of a tensor [n, c, ...].

    Attributes
    ----------
    result: variable of the last operation; it is replaced.
    data: a variable.
    groups: of channels with a mean and a variance of their own.
    joint: whether these are of all images together, the batch statistics of batch norm.
    scale, shift: expressions of c numbers.
    epsilon: a number.
    activation: of the result, None for nothing.
    absorbed: variables that vanish, `result` not among them.
    """

    result: Var
    data: Expr
    groups: int
    joint: bool
    scale: Expr
    shift: Expr
    epsilon: float
    activation: Activation | None = None
    absorbed: frozenset[Var] = frozenset()


def find_norms(users: Users, claimed: set[Var]) -> list[Norm]:
    """The norms of images [n, c, h, w] in "main", whose variables are added to `claimed`, in program order."""
    found = []
    for binding in users.bindings:
        if binding.var in claimed or len(shape_of(binding.var) or ()) != 4:
            continue
        norm = norm_of(binding.var, binding.value)
        if norm is not None:
            norm = _with_activation(users, norm, claimed)
            claimed |= {norm.result, *norm.absorbed}
            found.append(norm)
    return found


def norm_of(var: Var, value: Expr) -> Norm | None:
    """The norm over everything behind the channels that `value` is; None for anything else."""
    if not is_op(value, "relax.nn.group_norm", "relax.nn.instance_norm"):
        return None
    data, scale, shift = value.args
    shape, attrs = shape_of(data), value.attrs
    if shape is None or not math.prod(shape) or constant_value(data) is not None:
        return None
    if any(dtype_of(expr) != DType.FLOAT32 for expr in value.args) or int(attrs.channel_axis) % len(shape) != 1:
        return None
    axes = sorted(int(axis) % len(shape) for axis in attrs.axes)
    joint = is_op(value, "relax.nn.instance_norm") and axes[:1] == [0]
    if axes[joint:] != list(range(2, len(shape))):
        return None
    groups = shape[1] if is_op(value, "relax.nn.instance_norm") else int(attrs.num_groups)
    return Norm(var, data, groups, joint, scale, shift, float(attrs.epsilon))


def _with_activation(users: Users, norm: Norm, claimed: set[Var]) -> Norm:
    found = activation_of(users, norm.result, claimed)
    if found is None:
        return norm
    activation = None if found.activation == X else found.activation
    return replace(norm, result=found.result, activation=activation, absorbed=found.absorbed)
