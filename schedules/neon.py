"""Advanced SIMD of aarch64: 32 registers of 4 lanes, FMA by element."""

from pconvgen.values.isa import Isa, VectorWidth

# Two 128-bit FMA pipes and two load pipes: Cortex-A76 and later; A53 and A55 have half of both, the same ratio.
NEON = Isa(
    name="neon",
    widths=(VectorWidth(4, fma=2, loads=2, split=1.0),),
    registers=32,
    by_element=True,
    memory_operands=False,
    issue=4,
    paired=2,
)
