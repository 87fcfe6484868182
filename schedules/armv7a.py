"""Advanced SIMD of 32-bit ARM with VFPv4: 16 registers of 4 lanes."""

from pconvgen.values.isa import Isa, VectorWidth

# There is no fused multiply-add by element. The older one, which rounds twice, has it, and LLVM does not select it once
# fusing is allowed; separate multiplications and additions by element take 61 instructions for 12 products, and more
# registers than there are, FMAs with weights broadcast as they are loaded 26.
# One 64-bit pipe computes half a vector per cycle: Cortex-A7. Cortex-A15 has twice of everything, the same ratio.
ARMV7A = Isa(
    name="armv7a",
    widths=(VectorWidth(4, fma=0.5, loads=0.5, split=1.0),),
    registers=16,
    by_element=False,
    memory_operands=False,
    issue=2,
    paired=1,
    widen="llvm.arm.neon.vcvthf2fp",
)
