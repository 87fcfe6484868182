"""pconvgen doctor: whether everything is here that compiling, running and measuring take."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    device: Annotated[
        str | None, typer.Option(metavar="D", help="Check this device as well, up to a kernel that runs there.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="T", help="What that kernel is compiled for. Without it: what the device is.")
    ] = None,
) -> int:
    """Check this installation, and say what to do about what is missing.

    Fails only when nothing would work; what single targets and devices lack is a warning.
    """
    from pconvgen.devices import get_device
    from pconvgen.devices.doctor import checks
    from pconvgen.report.console import output, progress
    from pconvgen.report.tables import check_table
    from pconvgen.targets.presets import get_target
    from pconvgen.tuning.device_check import device_checks

    where = None if device is None else get_device(device)
    wanted = None if target is None else get_target(target)
    with progress("checking"):
        found = checks(wanted)
        if where is not None:
            found += device_checks(where, wanted)
    output().print(check_table(found))
    return 1 if any(check.status == "failure" for check in found) else 0
