"""Powers of tensors by a number."""

from __future__ import annotations

from typing import Any

from tvm import relax

from pconvgen.tvm_compat import Emit, dtype_of


def power(data: Any, exponent: float, emit: Emit) -> Any:
    """`data` to the power of `exponent`; small whole ones are products. Roots are of what is not negative."""
    if exponent == 1:
        return data
    if exponent == 0.5:
        return relax.op.sqrt(data)
    data = emit(data)
    if exponent in (2, 3):
        square = relax.op.multiply(data, data)
        return square if exponent == 2 else relax.op.multiply(square, data)
    return relax.op.power(data, relax.const(exponent, dtype_of(data)))
