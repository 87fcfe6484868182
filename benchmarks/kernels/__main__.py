"""Kernels against the roofs of the core: make bench-kernels, or python -m benchmarks.kernels.

For each layer, structure and density: milliseconds of the kernel and of packing its input, useful GFLOP/s (surviving
weights only), and the share of the FMA peak, all on one thread of one process (benchmarks/measuring.py has the rules).
Then the same layers in DeepSparse, and the promises of this version. Exits with 1 when one of them is missed.

Writes kernels.json and kernels.png, after a full run to the core's folder of benchmarks/results, after a filtered one
or one that was interrupted to out/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.command import FILTERED, errors_in_one_line, parser, require_kept


def main() -> None:
    """Measures, prints, writes."""
    args = _arguments()
    filtered = bool(args.layers or args.structures or args.densities)
    against = args.against or ("nothing" if filtered else "deepsparse")
    from benchmarks.kernels.run import Filters, run

    with errors_in_one_line():
        filters = Filters(args.layers, args.structures, args.densities)
        missed = run(filters, against == "deepsparse", args.out or (FILTERED if filtered else None))
    require_kept(missed)


def _arguments() -> argparse.Namespace:
    options = parser(__package__, __doc__)
    options.add_argument("--layers", nargs="+", metavar="GLOB", help="groups or names, e.g. 3x3 or '*@14'")
    options.add_argument("--structures", nargs="+", metavar="GLOB", help="e.g. 'simd_block(4)' pattern")
    options.add_argument("--densities", nargs="+", type=_density, metavar="D", help="e.g. 0.125 1")
    options.add_argument("--against", choices=("deepsparse", "nothing"), help="default: deepsparse without filters")
    options.add_argument("--out", type=Path, metavar="FOLDER", help="where kernels.json and kernels.png go")
    return options.parse_args()


def _density(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most 1")
    return value


if __name__ == "__main__":
    main()
