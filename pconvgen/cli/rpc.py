"""pconvgen rpc: a tracker that hands out devices, a server on this machine, and who is registered."""

from __future__ import annotations

from typing import Annotated

import typer

from pconvgen.cli.quiet import hand_on
from pconvgen.errors import UsageError

app = typer.Typer(help="Share devices over TVM's RPC.", no_args_is_help=True)

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; anybody who reaches it can run code.")]
Address = Annotated[str, typer.Argument(metavar="HOST:PORT", help="The tracker's address.", show_default=False)]


@app.command()
def tracker(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", help="The port.")] = 9190,
) -> None:
    """Run TVM's tracker: servers register at it, and clients are handed a free one."""
    import signal

    from pconvgen.devices.tracker import check_free
    from pconvgen.tvm_compat.rpc import start_tracker

    check_free(host, port)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the tracker is a thread that does not end by itself
    running = start_tracker(host, port)
    typer.echo(f"tracker on {host}:{port}; servers: pconvgen rpc server --tracker {host}:{port}")
    running.join()


@app.command()
def server(
    key: Annotated[str, typer.Option(metavar="NAME", help="What clients have to name.")] = "here",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", help="The port; 0 for any.")] = 9090,
    tracker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to register.")] = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="As an ARM device under emulation, which counts instructions.")
    ] = False,
) -> None:
    """Run a bundle's server on this machine: this machine as a device, or an emulated one."""
    import os
    import tempfile

    from pconvgen.devices import bundle
    from pconvgen.devices.tracker import check_free, parse_host
    from pconvgen.report.console import progress

    if not key or set(key) & set(" :/"):
        raise UsageError("no key", found=repr(key), expected="letters, digits and dashes")
    if tracker:
        parse_host(tracker)
    if port:
        check_free(host, port)
    with progress("building the server"):
        folder = bundle.cached(bundle.flavor("android-arm64" if emulated else "host"))
    work = tempfile.mkdtemp(prefix="pconvgen-server-")
    command = bundle.emulated_command(folder, f"{work}.counts") if emulated else [str(folder / bundle.START)]
    command += ["--key", key, "--host", host, "--port", str(port), "--folder", work]
    # It takes the place of this process, so that signals are its own; it removes its folder when it ends.
    hand_on()
    os.execv(command[0], [*command, *(["--tracker", tracker] if tracker else [])])


@app.command("list")
def list_(address: Address) -> None:
    """Show which servers are registered at a tracker, and how many are free."""
    from pconvgen.devices.tracker import servers
    from pconvgen.report.console import output
    from pconvgen.report.tables import server_table

    output().print(server_table(servers(address)))
