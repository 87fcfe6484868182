"""Advanced SIMD of aarch64: 32 registers of 128 bits, FMA by element."""

from pconvgen.values.dtype import DType
from pconvgen.values.isa import Isa

# Tails take whole registers in half precision (ARMv8.2 FP16), too: beside FMAs of eight lanes, LLVM broadcasts the
# weights of those of four rather than multiply by element.
NEON = Isa(
    name="neon",
    widths=(128,),
    registers=32,
    lane_indexed_fma=True,
    memory_operands=False,
    paired=2,
    arithmetic=(DType.FLOAT32, DType.FLOAT16),
)
