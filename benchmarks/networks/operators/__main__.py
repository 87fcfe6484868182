"""Where the time of whole networks goes, operator by operator: python -m benchmarks.networks.operators [NETWORK ...].

Each network is compiled at 224x224, batch 1, dense or pruned, and each call of its functions is timed, on one thread.
Listed is what takes more than 2 % of a network's time outside of convolutions and matrix products, with the bytes it
reads and writes per second, beside the share of all such functions together.
"""

from __future__ import annotations

from benchmarks.command import errors_in_one_line, parser


def main() -> None:
    """Prints a table."""
    options = parser(__package__, __doc__)
    options.add_argument("networks", nargs="*", metavar="NETWORK", help="keys of NETWORKS in benchmarks/models")
    networks = options.parse_args().networks
    from benchmarks.networks.operators.timing import run

    with errors_in_one_line():
        run(networks)


if __name__ == "__main__":
    main()
