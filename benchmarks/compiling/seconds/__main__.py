"""How long compiling takes: python -m benchmarks.compiling.seconds [NAME ...].

For each network of `make bench-networks`, dense and pruned, for networks that join many tensors, and for images and
kernels of awkward sizes: seconds to read the model, to compile it and to write the library, and the millions of cycles
that the analytic model predicts for what was chosen, so that a compiler that is quicker because it looks at less shows.
For this machine, one after the other in one process, after a small model that imports everything.
"""

from __future__ import annotations

from benchmarks.command import parser


def main() -> None:
    """Measures and prints."""
    options = parser(__package__, __doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="shell patterns of models, e.g. 'image *'")
    names = options.parse_args().names
    from benchmarks.compiling.seconds.timing import run

    run(names or None)


if __name__ == "__main__":
    main()
