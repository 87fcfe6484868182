"""The epilogue of a kernel, applied to vectors of outputs in registers."""

from __future__ import annotations

from pconvgen.templates.activations import activate
from pconvgen.tvm_compat.tir import Expr, T, cast, element_of
from pconvgen.values.workload import Epilogue


def finish(epilogue: Epilogue, value: Expr, lanes: int, bias: Expr | None, residual: Expr | None) -> Expr:
    """`value` + bias + residual and the activation of it, as the epilogue says.

    `value`, `bias` and `residual` are vectors of `lanes`; the latter two are None when the epilogue has none.
    """
    if epilogue.bias:
        value = value + bias
    if epilogue.residual:
        value = value + cast(residual, element_of(value))
    return value if epilogue.activation is None else activate(epilogue.activation, T.Bind(value), lanes)
