"""Which formats the processor of a target computes in."""

from __future__ import annotations

from pconvgen.errors import UsageError
from pconvgen.values.dtype import DType
from pconvgen.values.precision import Precision
from pconvgen.values.target import Target

HALF_ARITHMETIC = "fullfp16"
"""LLVM's name of the ARM feature that adds and multiplies float16 (FEAT_FP16 of ARMv8.2)."""


def check_formats(target: Target, precision: Precision) -> None:
    """Checks that the target's processor can compute in these formats.

    Raises
    ------
    UsageError: it cannot.
    """
    if precision.activations == DType.FLOAT32:
        return
    if precision.activations not in target.core.isa.activations:
        raise UsageError(
            f"target {target.name}: no kernels for {precision.activations} activations of {target.core.isa.name}",
            remedy="store only the weights in float16: --weights float16",
        )
    if precision.arithmetic == DType.FLOAT16 and not has_half_arithmetic(target):
        raise UsageError(
            f"target {target.name}: the processor does not compute in float16",
            found=target.cpu,
            expected="ARMv8.2 with half precision, such as cortex-a55, cortex-a76 or android-arm64-fp16",
            remedy="compile for one, or add up in float32: --accumulate float32",
        )


def has_half_arithmetic(target: Target) -> bool:
    """Whether LLVM generates half precision arithmetic for the target's processor."""
    from pconvgen.tvm_compat.llvm import has_feature

    return DType.FLOAT16 in target.core.isa.arithmetic and has_feature(target, HALF_ARITHMETIC)
