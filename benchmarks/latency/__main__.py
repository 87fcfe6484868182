"""How well latency is predicted on this machine: `python -m benchmarks.latency collect|networks|ship|evaluate`.

`collect` measures schedules of the layers of the benchmark's networks, at several densities and structures, and of
layers of any size: of each the default and some that are drawn by chance, then what tuning tries. `networks` measures
the tuned ones as a whole. `ship` writes the records and the model that come with pconvgen. `evaluate` learns from these
records with layers and networks held out, ranks the schedules that `benchmarks.tuning` has swept, predicts whole
networks and compares with how long they take, and measures what lies between the knots of latency curves; results go
to latency.json and .png in the core's folder of benchmarks/results.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pconvgen.cli.guard import INTERRUPTED

On = Annotated[str, typer.Option("--on", help="host, avx2 for this machine without its AVX-512, or an ARM target.")]

app = typer.Typer(no_args_is_help=True, help="How well latency is predicted on this machine.")


@app.command()
def collect(
    names: Annotated[list[str] | None, typer.Argument(help="Only these, e.g. resnet50-pattern-25 or layers-0.")] = None,
    on: On = "host",
) -> None:
    """Measure; about an hour. An interrupted run is gone on from. For ARM, the layers that come with pconvgen only."""
    from benchmarks.latency.collect import collect

    if not collect(names, on):
        raise typer.Exit(INTERRUPTED)


@app.command()
def networks(on: On = "host") -> None:
    """Measure the networks that were tuned as a whole."""
    from benchmarks.latency.collect import measure_networks

    measure_networks(on)


@app.command()
def evaluate() -> None:
    """Predict what is held out, and compare; half an hour."""
    from benchmarks.latency.evaluate import evaluate

    raise typer.Exit(not evaluate())


@app.command()
def ship(on: On = "host") -> None:
    """Write what comes with pconvgen: the fastest record of each layer of some networks, and the learned model."""
    from benchmarks.latency.collect import ship

    ship(on)


if __name__ == "__main__":
    app()
