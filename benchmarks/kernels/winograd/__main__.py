"""Dense 3x3 layers: direct convolution against Winograd, python -m benchmarks.kernels.winograd [LAYER ...].

For each layer: milliseconds of the kernel without packing its input, direct, with F(2, 3) and with F(4, 3), each with
the schedule that the model likes best; the milliseconds that it predicts (packing included) at the clock of the FMA
peak; the share of that peak that the multiplications of the better of the two have, transforms taking part of the time.
One thread of one process; benchmarks/measuring.py has the rules.
"""

from __future__ import annotations

from benchmarks.command import parser


def main() -> None:
    """Measures and prints."""
    options = parser(__package__, __doc__)
    options.add_argument("layers", nargs="*", metavar="LAYER", help="shell patterns of layers, e.g. '*@56'")
    layers = options.parse_args().layers
    from benchmarks.kernels.winograd.rivals import run

    run(layers or None)


if __name__ == "__main__":
    main()
