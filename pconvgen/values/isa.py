"""An instruction set: which vector instructions exist, whatever a core makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from pconvgen.values.dtype import DType


@dataclass(frozen=True)
class Isa:
    """One SIMD instruction set as code is generated for it.

    Attributes
    ----------
    name: key of `pconvgen.schedules.ISAS`.
    widths: bits of usable vectors, the native ones first.
    registers: vector registers.
    lane_indexed_fma: whether FMA can multiply by one lane of a register, so that weights are loaded as vectors.
    memory_operands: whether FMA can read an input from memory, so that one which is used once takes no register.
    paired: vectors that one load instruction can bring.
    widen: LLVM's intrinsic that makes 4 float32 of 4 float16 in a vector; None where LLVM does so by itself.
    activations: formats that kernels read and write tensors in.
    arithmetic: formats that there are FMAs in, at least on some cores.
    """

    name: str
    widths: tuple[int, ...]
    registers: int
    lane_indexed_fma: bool
    memory_operands: bool
    paired: int
    widen: str | None = None
    activations: tuple[DType, ...] = (DType.FLOAT32, DType.FLOAT16)
    arithmetic: tuple[DType, ...] = (DType.FLOAT32,)

    def lanes(self, dtype: DType) -> tuple[int, ...]:
        """Elements of that format in a vector of each width."""
        return tuple(bits // dtype.bits for bits in self.widths)
