"""What a kernel generator must know about an instruction set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VectorWidth:
    """One vector width and what a core does with it.

    Attributes
    ----------
    lanes: of the format that is computed in.
    fma: FMAs started per cycle.
    loads: loads started per cycle.
    split: load slots that an unaligned load costs on average (crossing a 64-byte line costs a second one).
    """

    lanes: int
    fma: float
    loads: float
    split: float


@dataclass(frozen=True)
class Isa:
    """One SIMD instruction set as code is generated for it.

    Attributes
    ----------
    name: key of ISAS.
    widths: usable vector widths, the native one first.
    registers: vector registers.
    by_element: whether FMA can multiply by one lane of a register, so that weights are loaded as vectors.
    memory_operands: whether FMA can read an input from memory, so that one which is used once takes no register.
    issue: instructions started per cycle.
    paired: vectors that one load instruction can bring.
    widen: LLVM's intrinsic that makes 4 float32 of 4 float16 in a vector; None where LLVM does so by itself.
    """

    name: str
    widths: tuple[VectorWidth, ...]
    registers: int
    by_element: bool
    memory_operands: bool
    issue: float
    paired: int
    widen: str | None = None
