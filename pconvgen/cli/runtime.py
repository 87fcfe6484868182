"""pconvgen runtime: what a phone or board needs to run and measure compiled models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make what a phone or board needs to be measured on.", no_args_is_help=True)


@app.command()
def build(
    target: Annotated[str, typer.Option(metavar="android-arm64|aarch64-linux|host", help="What the bundle is for.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder for the bundle.")],
) -> None:
    """Write a folder with TVM's runtime and a server that measures models sent to it.

    Copy it to the device and run its start.sh there; `--device rpc://HOST:PORT/KEY` then measures on it.
    """
    from pconvgen.devices import bundle
    from pconvgen.report.console import output as console
    from pconvgen.report.console import progress

    kind = bundle.flavor(target)
    with progress("building the bundle"):
        bundle.build(kind, output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    console().print(f"wrote {output}: {size / 2**20:.1f} MiB for {kind.name}; tested {kind.tested}")
    console().print(f"on the device: {bundle.START} --key NAME --port 9090")
