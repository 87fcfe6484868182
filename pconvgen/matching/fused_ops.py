"""Finding layers: a convolution or matrix product by a constant, with the epilogue that can be fused behind it.

lv0 = conv2d(x, weight)                 FusedOp(var=lv0, data=x, weight, bias, residual=y,
lv1 = add(lv0, bias)             ->          result=lv3, absorbed={lv0, lv1, lv2},
lv2 = add(lv1, y)                            epilogue=Epilogue(True, True, RELU))
lv3 = relu(lv2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.matching.activations import activation_of
from pconvgen.matching.users import Users
from pconvgen.tvm_compat.relax import Expr, Module, Var, constant_value, is_op, shape_of
from pconvgen.values.workload import ConvWorkload, Epilogue, X


@dataclass(frozen=True, eq=False)
class FusedOp:
    """One layer in the module.

    Attributes
    ----------
    var: the variable of the convolution or matrix product; its name is the layer's.
    op: conv2d or linear.
    data: input expression.
    weight: float32 [filters, input channels / groups, height, width]; of a linear layer a view of what it is in memory.
    bias: float32 [filters] or None.
    residual: variable that is added, or None.
    result: variable of the last operation of the chain; it is replaced.
    absorbed: variables that vanish, `result` not among them.
    workload: shapes and epilogue; a linear layer is a 1x1 convolution of one pixel, its rows are images.
    out_shape: shape of `result`.
    """

    var: Var
    op: str
    data: Expr
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    residual: Expr | None
    result: Var
    absorbed: frozenset[Var]
    workload: ConvWorkload
    out_shape: tuple[int, ...]


def find_fused_ops(module: Module) -> list[FusedOp]:
    """The layers of "main", in program order."""
    users = Users(module)
    claimed: set[Var] = set()
    fused_ops = []
    # Backwards: of two convolutions whose sum is the residual add, the later one takes it, as it has the other operand.
    for binding in reversed(users.bindings):
        base = _conv2d(binding.value) or _linear(binding.value)
        if base is not None:
            fused_op = _with_epilogue(users, binding.var, claimed, *base)
            claimed |= {fused_op.result, *fused_op.absorbed}
            fused_ops.append(fused_op)
    return fused_ops[::-1]


def _conv2d(value: Expr) -> tuple[str, Expr, NDArray[np.float32], ConvWorkload] | None:
    if not is_op(value, "relax.nn.conv2d"):
        return None
    weight, attrs = constant_value(value.args[1]), value.attrs
    if weight is None or weight.dtype != np.float32 or (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW"):
        return None
    shape = shape_of(value.args[0])
    if shape is None:
        return None
    n, c, h, w = shape
    top, left, bottom, right = (int(p) for p in attrs.padding)
    (stride_rows, stride_columns), (dilated_rows, dilated_columns) = attrs.strides, attrs.dilation
    workload = ConvWorkload(
        batch=n,
        in_channels=c,
        height=h,
        width=w,
        out_channels=weight.shape[0],
        kernel=(weight.shape[2], weight.shape[3]),
        stride=(int(stride_rows), int(stride_columns)),
        padding=(top, left, bottom, right),
        dilation=(int(dilated_rows), int(dilated_columns)),
        groups=int(attrs.groups),
    )
    return "conv2d", value.args[0], weight, workload


def _linear(value: Expr) -> tuple[str, Expr, NDArray[np.float32], ConvWorkload] | None:
    if not is_op(value, "relax.matmul"):
        return None
    weight = constant_value(value.args[1])
    shape = shape_of(value.args[0])
    if shape is None or weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    channels, filters = weight.shape
    workload = ConvWorkload(rows, channels, 1, 1, filters, (1, 1))
    return "linear", value.args[0], weight.T[:, :, None, None], workload


def _with_epilogue(
    users: Users, var: Var, claimed: set[Var], op: str, data: Expr, weight: NDArray[np.float32], workload: ConvWorkload
) -> FusedOp:
    """Follows the only user of each result while it can be added, then what is a function of the sum."""
    result, bias, residual = var, None, None
    absorbed: frozenset[Var] = frozenset()
    while (user := users.only(result)) is not None and user.var not in claimed and is_op(user.value, "relax.add"):
        value = user.value
        other = value.args[1] if value.args[0].same_as(result) else value.args[0]
        constant = constant_value(other)
        if constant is not None and bias is None and residual is None and _is_bias(constant, op, weight.shape[0]):
            bias = constant.reshape(-1)
        elif constant is None and residual is None and shape_of(other) == shape_of(result):
            residual = other
        else:
            break
        absorbed |= {result}
        result = user.var
    found, activation = activation_of(users, result, claimed), None
    if found is not None:
        absorbed |= found.absorbed
        result = found.result
        activation = None if found.activation == X else found.activation
    epilogue = Epilogue(bias is not None, residual is not None, activation)
    workload = replace(workload, epilogue=epilogue)
    shape = shape_of(result) or ()
    return FusedOp(var, op, data, weight, bias, residual, result, absorbed, workload, shape)


def _is_bias(constant: NDArray[Any], op: str, filters: int) -> bool:
    """Whether adding `constant` adds one number to each output channel."""
    axis = -3 if op == "conv2d" else -1
    shape = (1,) * (4 - constant.ndim) + constant.shape
    expected = [1, 1, 1, 1]
    expected[axis] = filters
    return constant.dtype == np.float32 and list(shape) == expected
