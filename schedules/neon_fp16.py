"""Advanced SIMD of aarch64 with half precision arithmetic (ARMv8.2 FP16): 32 registers of 8 lanes, FMA by element."""

from pconvgen.values.isa import Isa, VectorWidth

# The pipes of `neon` with twice the lanes. Tails take whole registers: beside FMAs of eight lanes, LLVM broadcasts the
# weights of those of four rather than multiply by element.
NEON_FP16 = Isa(
    name="neon-fp16",
    widths=(VectorWidth(8, fma=2, loads=2, split=1.0),),
    registers=32,
    by_element=True,
    memory_operands=False,
    issue=4,
    paired=2,
)
