"""What measuring over TVM's RPC adds to times: `python -m benchmarks.networks.rpc_overhead`.

A network of about 10 ms is measured on this machine, in turns by itself and over a server on the loopback interface.
Exits with 1 when the promise is missed.
"""

from __future__ import annotations

import sys

from benchmarks.command import parser


def main() -> None:
    """Prints both times."""
    parser(__package__, __doc__).parse_args()
    from benchmarks.networks.rpc_overhead.overhead import run

    sys.exit(not run())


if __name__ == "__main__":
    main()
