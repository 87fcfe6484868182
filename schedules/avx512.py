"""AVX-512: 32 registers of 512 bits, which short tails use at half their width."""

from pconvgen.values.isa import Isa

AVX512 = Isa(
    name="avx512",
    widths=(512, 256),
    registers=32,
    lane_indexed_fma=False,
    memory_operands=True,
    paired=1,
)
