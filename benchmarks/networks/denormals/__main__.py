"""What denormal numbers add to times: `python -m benchmarks.networks.denormals`.

Small models, each timed in one process in turns with normal numbers, with denormal ones, and with numbers that exp
makes denormal. The ratios tell on Intel's cores, where an operation with a denormal number takes a hundred cycles or
more; AMD's since Zen take a few. Exits with 1 when the promise is missed.
"""

from __future__ import annotations

from benchmarks.command import errors_in_one_line, parser, require_kept


def main() -> None:
    """Prints a table."""
    parser(__package__, __doc__).parse_args()
    from benchmarks.networks.denormals.ratios import run

    with errors_in_one_line():
        require_kept(run())


if __name__ == "__main__":
    main()
