"""Instructions of 3x3 layers on ARM, without ARM hardware: `make bench-arm`, or python -m benchmarks.arm.kernels.

For each layer, pconvgen's kernel of every structure and other engines' dense kernels run under qemu, which counts the
instructions of one inference (vector FMAs beside them). Counts are exact and repeat; they are not times. The cycles
next to them are static estimates by llvm-mca. One thread, float32 and half precision, bias and ReLU included. Exits
with 1 when a promise is missed or cannot be checked.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.command import RESULTS, parser


def main() -> None:
    """Prints the tables, writes the JSON."""
    options = parser(__package__, __doc__)
    options.add_argument("--json", type=Path, default=RESULTS / "arm.json")
    path = options.parse_args().json
    from benchmarks.arm.kernels.run import run

    if missed := run(path):
        raise SystemExit(f"promises missed or not checked: {', '.join(missed)}")


if __name__ == "__main__":
    main()
