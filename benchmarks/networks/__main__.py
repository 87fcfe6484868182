"""Whole networks against other engines: make bench-networks, or python -m benchmarks.networks.

For each network, pruned and dense: milliseconds on one thread here and in every engine that users would pick,
interleaved in one run (benchmarks/networks/measuring.py has the rules), the bound that the FMA peak sets, seconds and
memory of compiling, size of the library, and every layer beside the same layer compiled dense. Exits with 1 when a
promise is missed.

The first run takes longer: it makes the engines' environments in the user's cache folder and tunes TVM for one network.

Writes networks.json and pictures to the core's folder of benchmarks/results, and docs/performance.md of all cores,
after a full run; a filtered one writes to out/. With --keep, networks that were measured again take the places of the
earlier ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.command import FILTERED, errors_in_one_line, parser, require_kept

ROUNDS = 7


def main() -> None:
    """Measures, prints, writes."""
    args = _arguments()
    filtered = args.networks or args.peers is not None
    folder = args.out or (FILTERED if filtered and not args.keep else None)
    from benchmarks.networks.run import run

    with errors_in_one_line():
        missed = run(args.networks, args.peers, args.rounds, folder)
    require_kept(missed)


def _arguments() -> argparse.Namespace:
    options = parser(__package__, __doc__)
    options.add_argument("--networks", nargs="+", metavar="GLOB", help="e.g. vgg16_bn 'mobilenet*'")
    options.add_argument("--peers", nargs="*", metavar="GLOB", help="e.g. MNN deepsparse; none for no peers")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="how often each engine is measured (%(default)s)")
    where = options.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go")
    where.add_argument("--keep", action="store_true", help="put what was filtered among the core's earlier results")
    return options.parse_args()


if __name__ == "__main__":
    main()
