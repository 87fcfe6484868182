"""The epilogue of a kernel, applied to vectors of outputs in registers."""

from __future__ import annotations

from typing import Any

from pconvgen.tvm_compat import T, broadcast
from pconvgen.workload import Epilogue


def finish(epilogue: Epilogue, value: Any, lanes: int, bias: Any, residual: Any, at: Any) -> Any:
    """`value` + bias + residual[at], clipped, as the epilogue says.

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
    if epilogue.low is not None:
        value = T.max(value, broadcast(T.float32(epilogue.low), lanes))
    if epilogue.high is not None:
        value = T.min(value, broadcast(T.float32(epilogue.high), lanes))
    return value
