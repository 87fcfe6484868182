"""The epilogue of a kernel, applied to vectors of outputs in registers."""

from __future__ import annotations

from typing import Any

from pconvgen.templates.activations import activate
from pconvgen.tvm_compat import T
from pconvgen.workload import Epilogue


def finish(epilogue: Epilogue, value: Any, lanes: int, bias: Any, residual: Any, at: Any) -> Any:
    """`value` + bias + residual[at] and the activation of it, as the epilogue says.

    Parameters
    ----------
    value, bias: vectors of `lanes`; bias is None when the epilogue has none.
    residual: flat buffer of the output's size or None.
    at: index of the vector in the flat output.
    """
    if epilogue.bias:
        value = value + bias
    if epilogue.residual:
        value = value + residual[at]
    return value if epilogue.activation is None else activate(epilogue.activation, T.Bind(value), lanes)
