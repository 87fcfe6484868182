"""Whether a change of the compiler changes what it writes: python -m benchmarks.compiling.same_libraries DIGESTS.

Compiles each network of `make bench-networks`, dense and with a quarter of its weights in each structure, for this
machine and for ARM cores. The digests of the libraries go to the file DIGESTS where there is none yet; where there is
one, libraries that differ from it are printed, and the exit code is 1. Run it before and after a change, on one
machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.command import parser


def main() -> None:
    """Exits with 1 when a library differs."""
    options = parser(__package__, __doc__)
    options.add_argument("digests", type=Path, metavar="DIGESTS", help="JSON file, written or compared with")
    options.add_argument("names", nargs="*", metavar="NAME", help="shell patterns, e.g. 'mobilenet_* pattern'")
    args = options.parse_args()
    from benchmarks.compiling.same_libraries.digests import run

    sys.exit(not run(args.digests, args.names or None))


if __name__ == "__main__":
    main()
