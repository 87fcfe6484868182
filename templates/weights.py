"""Weights as they come from memory, in the format that is computed in."""

from __future__ import annotations

from pconvgen.tvm_compat.tir import Expr, cast, element_of, intrinsic, lanes_of
from pconvgen.values.dtype import DType
from pconvgen.values.isa import Isa


def weights(loaded: Expr, computed: str, isa: Isa) -> Expr:
    """A vector of weights, or one broadcast, converted where they are stored in another format."""
    if isa.widen and lanes_of(loaded) == 4 and (element_of(loaded), computed) == (DType.FLOAT16, DType.FLOAT32):
        return intrinsic(isa.widen, loaded, "int16", computed, 4)
    return cast(loaded, computed)
