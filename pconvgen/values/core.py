"""A core: what one microarchitecture does with the instructions of its ISA, as numbers that cost is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pconvgen.values.dtype import DType
from pconvgen.values.isa import Isa


@dataclass(frozen=True)
class VectorRate:
    """What a core does with vectors of one width.

    Attributes
    ----------
    fma: FMAs started per cycle.
    loads: loads started per cycle.
    split: load slots that an unaligned load costs on average (crossing a 64-byte line costs a second one).
    """

    fma: float
    loads: float
    split: float


@dataclass(frozen=True)
class VectorWidth:
    """A vector of one width, of elements of one format.

    Attributes
    ----------
    lanes: its elements.
    fma, loads, split: see VectorRate.
    """

    lanes: int
    fma: float
    loads: float
    split: float


@dataclass(frozen=True)
class Costs:
    """Cycles, and bytes per cycle, of what kernels do beside their FMAs. The defaults were fitted to some hundred
    schedules that were measured on Zen 4; on other cores what nobody measured is as there.

    Attributes
    ----------
    fma_latency: cycles until an accumulator can be added to again.
    entry: instructions for index, address and branch of one entry, beside its taps.
    strided: what a load of every second element costs: two loads and a shuffle.
    body: cycles to enter and leave the loop over a body's entries, whose exit is mispredicted.
    store: cycles for the epilogue and store of one vector, or to pack one.
    call: cycles to call a kernel.
    plane: cycles to store a vector in a further plane, or split by the stride.
    zeros: cycles for the zeros beside a row of a plane.
    part: what a tile's input may take in one part of the input channels, as a share of the first-level cache; measured,
        a little more than all of it.
    l2_bytes: bytes per cycle that come from the second-level cache, where the input of a block lies.
    l3_bytes: bytes per cycle that come from behind it.
    tlb_kib: what the pages of the first-level TLB cover.
    tlb_miss: how much longer lines take when the input of a block is larger than that.
    overlap: share of the shorter of arithmetic and fetching that hides behind the longer.
    load: cycles of a load instruction that do not hide behind anything.
    in_order: share of the time to start instructions that does not hide; none where they issue out of order.
    line: bytes of a cache line.
    memory_bytes: bytes per cycle that one core reads from memory.
    streamed: share of reading the weights from memory, where they are after the rest of a network, that does not hide.
    cold: cycles for a line of input that no prefetch has brought from behind the second-level cache.
    code: FMAs that the bodies of one tile may unroll to: 8 KiB of instructions, a quarter of the instruction cache.
    """

    fma_latency: float = 4.0
    entry: int = 8
    strided: float = 2.5
    body: float = 10.0
    store: float = 3.5
    call: float = 1500.0
    plane: float = 2.0
    zeros: float = 1.5
    part: float = 1.125
    l2_bytes: float = 30.0
    l3_bytes: float = 20.0
    tlb_kib: int = 256
    tlb_miss: float = 1.15
    overlap: float = 0.95
    load: float = 0.15
    in_order: float = 0.0
    line: int = 64
    memory_bytes: float = 6.0
    streamed: float = 0.4
    cold: float = 20.0
    code: int = 1024


@dataclass(frozen=True)
class Core:
    """One microarchitecture, or several that kernels need not tell apart.

    Attributes
    ----------
    name: key of `pconvgen.schedules.cores.CORES`.
    isa: its instruction set.
    rates: what it does with vectors of each of the ISA's widths.
    issue: instructions started per cycle.
    l1_kib, l2_kib: data caches of one core in KiB. What a tile reads stays in the first while filters go by; blocks
        follow the second.
    costs: of everything else.
    cpus: LLVM's names of the processors that are such cores.
    """

    name: str
    isa: Isa
    rates: tuple[VectorRate, ...]
    issue: float
    l1_kib: int = 32
    l2_kib: int = 512
    costs: Costs = Costs()
    cpus: tuple[str, ...] = ()

    def __hash__(self) -> int:
        # Caches of prices ask for it over and over; few cores that differ have these in common.
        return hash((self.name, self.l2_kib))

    def widths(self, dtype: DType) -> tuple[VectorWidth, ...]:
        """Its vectors of such elements, the native ones first."""
        return _widths(self.isa, self.rates, dtype)

    def lanes(self, dtype: DType) -> int:
        """Elements of that format in a native vector."""
        return self.isa.widths[0] // dtype.bits


@lru_cache
def _widths(isa: Isa, rates: tuple[VectorRate, ...], dtype: DType) -> tuple[VectorWidth, ...]:
    return tuple(
        VectorWidth(lanes, rate.fma, rate.loads, rate.split)
        for lanes, rate in zip(isa.lanes(dtype), rates, strict=True)
    )
