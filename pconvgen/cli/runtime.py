"""pconvgen runtime: what a phone or board needs to run and measure compiled models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pconvgen.errors import UsageError

app = typer.Typer(help="Make what a phone or board needs to be measured on.", no_args_is_help=True)


@app.command()
def build(
    target: Annotated[str, typer.Option(metavar="android-arm64|aarch64-linux|host", help="What the bundle is for.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder for the bundle.")],
    ndk: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For apps: compile TVM's runtime for Android's C library with this NDK."),
    ] = None,
    tvm_source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For that: TVM's repository with submodules, in the version installed here."),
    ] = None,
) -> None:
    """Write a folder with TVM's runtime and a server that measures models sent to it.

    Copy it to the device and run its start.sh there; `--device rpc://HOST:PORT/KEY` then measures on it.
    """
    from pconvgen.devices import bundle
    from pconvgen.devices.ndk import FLAVOR, Ndk
    from pconvgen.report.console import output as console
    from pconvgen.report.console import progress

    kind, parts = bundle.flavor(target), None
    if ndk is not None or tvm_source is not None:
        if ndk is None or tvm_source is None or target != FLAVOR.name:
            raise UsageError(
                f"--ndk and --tvm-source go together, with --target {FLAVOR.name}",
                remedy="name both, or neither: a bundle to measure with needs none",
            )
        kind, parts = FLAVOR, Ndk(ndk.resolve(), tvm_source.resolve()).parts
    with progress("building the bundle"):
        bundle.build(kind, output, parts)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    console().print(f"wrote {output}: {size / 2**20:.1f} MiB for {kind.name}; tested {kind.tested}")
    console().print(f"on the device: {bundle.START} --key NAME --port 9090")
