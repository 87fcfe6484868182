"""Instructions of whole networks on ARM: `make bench-arm`, or python -m benchmarks.arm.networks [--networks NAME...].

Pruned and dense by pconvgen, dense by other engines' ARM wheels; one inference of a small image, counted under qemu.
Counts are exact and repeat; they are not times. One thread; float32, and float16 where an engine has it. Exits with 1
when a promise is missed.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.arm.networks.promises import PROMISES
from benchmarks.command import RESULTS, errors_in_one_line, parser, require_kept


def main() -> None:
    """Prints the table, writes the JSON."""
    options = parser(__package__, __doc__)
    options.add_argument("--networks", nargs="+", choices=list(dict.fromkeys(promise.network for promise in PROMISES)))
    options.add_argument("--json", type=Path, default=RESULTS / "arm_networks.json")
    args = options.parse_args()
    from benchmarks.arm.networks.run import run

    with errors_in_one_line():
        missed = run(args.networks, args.json)
    require_kept(missed)


if __name__ == "__main__":
    main()
