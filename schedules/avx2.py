"""AVX2 with FMA: 16 registers of 256 bits."""

from pconvgen.values.isa import Isa

AVX2 = Isa(
    name="avx2",
    widths=(256,),
    registers=16,
    lane_indexed_fma=False,
    memory_operands=True,
    paired=1,
)
