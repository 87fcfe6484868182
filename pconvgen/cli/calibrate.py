"""pconvgen calibrate: how long layers take on a device, learned in a minute of measuring."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from pconvgen.cli.guard import INTERRUPTED
from pconvgen.cli.options import check_output, device_for
from pconvgen.errors import UsageError


def command(
    target: Annotated[str, typer.Option(metavar="T", help="What the device is, see `pconvgen targets`.")] = "host",
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D", help="What to measure, an address as for `bench`. Without it: this machine, for `host` only."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Measure for so long.")] = 60.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="M", help="Also write the model here, for `--latency` elsewhere."),
    ] = None,
) -> None:
    """Measure layers of all kinds on a device, so that every command knows its milliseconds.

    What is learned is kept in the cache for that target and class of devices, where `compile`, `explain`, `whatif` and
    `tune` find it. Running it again goes on where it ended.
    """
    if seconds <= 0:
        raise UsageError("--seconds is not positive", found=seconds, remedy="give a positive number")
    if output is not None:
        check_output(output)
    from pconvgen.targets.linker import find_linker
    from pconvgen.targets.presets import get_target

    preset = get_target(target)
    find_linker(preset)
    where = device_for(device, preset)

    from pconvgen.files import replacing
    from pconvgen.report.calibration import measuring, result
    from pconvgen.report.console import output as console

    found = measuring(preset, where, seconds, f"calibrating {where.name}")
    out = console()
    out.print(result(found))
    if output is not None:
        with replacing(output) as temporary:
            shutil.copyfile(found.path, temporary)
        out.print(f"wrote {output}")
    if found.interrupted:
        out.print("interrupted; run the command again to go on")
        raise typer.Exit(INTERRUPTED)
