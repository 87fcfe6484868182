"""What this machine's core can do at most: GFLOP/s of FMAs, GB/s read from its L2 cache and from memory."""

from __future__ import annotations

from benchmarks.command import parser


def main() -> None:
    """Measures and prints."""
    parser(__package__, __doc__).parse_args()
    from benchmarks.peak.meters import fma_meter, l2_meter, memory_meter, roofs
    from pconvgen.targets.presets import get_target

    host = get_target("host")
    found = roofs(fma_meter(host), l2_meter(host), memory_meter(host))
    print(f"{found.fma_gflops:.0f} GFLOP/s, {found.l2_gbs:.0f} GB/s from L2, {found.memory_gbs:.0f} GB/s from memory")


if __name__ == "__main__":
    main()
