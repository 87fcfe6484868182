"""AVX2 with FMA: 16 registers of 8 lanes."""

from pconvgen.values.isa import Isa, VectorWidth

AVX2 = Isa(
    name="avx2",
    widths=(VectorWidth(8, fma=2, loads=2, split=1.5),),
    registers=16,
    by_element=False,
    memory_operands=True,
    issue=5,
    paired=1,
)
