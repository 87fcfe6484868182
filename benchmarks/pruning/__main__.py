"""How accurate pruned networks are, and how fast: `make bench-pruning`.

Networks are trained, pruned and fine-tuned on scikit-learn's digits, several times with other splits and weights. The
first part compares ADMM with one-shot magnitude at equal densities; the second prunes against budgets of milliseconds
on this machine, beside uniform densities and filter pruning, and measures what comes out; the third times projections.
Results go to pruning.json and pruning.png in the core's folder of benchmarks/results.
"""

from __future__ import annotations

from typing import Annotated

import typer


def main(
    seeds: Annotated[int, typer.Option(metavar="N", help="Splits and initial weights.", min=1)] = 5,
    data: Annotated[
        str, typer.Option(metavar="digits|cifar10=DIR|images=DIR", help="DIR of CIFAR-10, or with train and val.")
    ] = "digits",
    workers: Annotated[int, typer.Option(metavar="N", help="Trainings at a time.", min=1)] = 2,
) -> None:
    """How accurate pruned networks are, and how fast.

    Networks are trained, pruned and fine-tuned on scikit-learn's digits, several times with other splits and weights.
    The first part prunes against budgets of milliseconds on this machine, beside uniform densities and filter pruning,
    and measures what comes out; the second times projections; the third compares ADMM with one-shot magnitude at equal
    densities. Results go to the core's folder of benchmarks/results. Exits with 1 when a promise is missed.
    """
    from benchmarks.pruning.run import run

    raise typer.Exit(bool(run(seeds, data, workers)))


if __name__ == "__main__":
    typer.run(main)
