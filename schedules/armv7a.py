"""Advanced SIMD of 32-bit ARM with VFPv4: 16 registers of 128 bits."""

from pconvgen.values.dtype import DType
from pconvgen.values.isa import Isa

# There is no fused multiply-add by element. The older one, which rounds twice, has it, and LLVM does not select it once
# fusing is allowed; separate multiplications and additions by element take 61 instructions for 12 products, and more
# registers than there are, FMAs with weights broadcast as they are loaded 26.
ARMV7A = Isa(
    name="armv7a",
    widths=(128,),
    registers=16,
    lane_indexed_fma=False,
    memory_operands=False,
    paired=1,
    widen="llvm.arm.neon.vcvthf2fp",
    activations=(DType.FLOAT32,),
)
