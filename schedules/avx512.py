"""AVX-512: 32 registers of 16 lanes, which short tails use at half their width."""

from pconvgen.values.isa import Isa, VectorWidth

AVX512 = Isa(
    name="avx512",
    widths=(VectorWidth(16, fma=2, loads=2, split=2.0), VectorWidth(8, fma=2, loads=2, split=1.5)),
    registers=32,
    by_element=False,
    memory_operands=True,
    issue=5,
    paired=1,
)

# Zen 4 runs 512-bit instructions as two halves, so 256-bit vectors have the same peak and shorter tails.
# `split` is fitted to some hundred measured schedules.
AVX512_ZEN4 = Isa(
    name="avx512-zen4",
    widths=(VectorWidth(16, fma=1, loads=1, split=1.5), VectorWidth(8, fma=2, loads=2, split=1.8)),
    registers=32,
    by_element=False,
    memory_operands=True,
    issue=5,
    paired=1,
)
