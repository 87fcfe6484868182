"""The command line. One file per command; what is slow to import is imported inside, so that help answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from pconvgen.cli import (
    bench,
    calibrate,
    compile,
    doctor,
    explain,
    latency,
    records,
    rpc,
    run,
    runtime,
    sparsify,
    targets,
    tune,
    whatif,
)
from pconvgen.cli.guard import Commands

app = typer.Typer(
    name="pconvgen",
    cls=Commands,
    help="The open compiler for pruned CNNs: patterns, SIMD blocks and punched blocks become fast ARM code.",
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, module in {
    "compile": compile,
    "explain": explain,
    "run": run,
    "bench": bench,
    "tune": tune,
    "calibrate": calibrate,
    "whatif": whatif,
    "sparsify": sparsify,
    "targets": targets,
    "doctor": doctor,
}.items():
    app.command(name)(module.command)
app.add_typer(records.app, name="records")
app.add_typer(latency.app, name="latency")
app.add_typer(runtime.app, name="runtime")
app.add_typer(rpc.app, name="rpc")


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command, given here or on the command line, and exits with its code."""
    sys.exit(get_command(app)(args, prog_name="pconvgen"))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pconvgen {version('pconvgen')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # `Commands` looks at --debug itself, because it is about errors outside of commands as well.
    pass
