"""The main job in minutes: `make demo`.

A small CNN learns scikit-learn's digits, is pruned to patterns and connectivity, learns again, and becomes two shared
libraries: for this machine and for an ARM Cortex-A76, which runs under emulation. Then a network of ResNet-50's size.
"""

from __future__ import annotations

from benchmarks.command import parser


def main() -> None:
    """Runs all parts; libraries are left in out/."""
    parser(__package__, __doc__).parse_args()
    from benchmarks.demo.compare import OUT
    from benchmarks.demo.digits import digits
    from benchmarks.demo.large import large

    OUT.mkdir(exist_ok=True)
    digits()
    large()


if __name__ == "__main__":
    main()
