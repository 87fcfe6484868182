"""How good the tuner is, against chance: `python -m benchmarks.tuning`.

For two 3x3 layers of each structure, the tuner gets 60 trials on a device that it knows nothing of; after it, with the
same runner, 500 schedules that are drawn by chance are measured. Then, with `--network`, a pruned ResNet-50 is tuned
and run with the default schedules and with those that were found. Results go to tuning.json in the core's folder of
benchmarks/results.
"""

from __future__ import annotations

from typing import Annotated

import typer


def main(
    network: Annotated[bool, typer.Option("--network", help="Also tune a pruned ResNet-50.")] = False,
    structures: Annotated[list[str] | None, typer.Option("--structure", help="Only these.")] = None,
) -> None:
    """How good the tuner is, against chance.

    For two 3x3 layers of each structure, the tuner gets 60 trials on a device that it knows nothing of; after it, with
    the same runner, 500 schedules that are drawn by chance are measured. Results go to tuning.json in the core's folder
    of benchmarks/results.
    Exits with 1 when a schedule is further from the best than promised.
    """
    from benchmarks.tuning.run import run

    raise typer.Exit(not run(network, structures))


if __name__ == "__main__":
    typer.run(main)
