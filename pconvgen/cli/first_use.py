"""What happens when a command asks for times of this machine, and nobody has measured it yet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pconvgen.values.target import Target

SECONDS = 20.0
"""Of measuring; `pconvgen calibrate` takes longer, and predicts better."""


def is_unmeasured(target: Target, *, wanted: bool, latency: Path | None = None) -> bool:
    """Whether this machine is the target, nothing was learned of it, and that is to be changed.

    Not where the cache cannot be written, nor where software is tested for others, which sets CI: tables say that there
    are no times, and what would make them.
    """
    from pconvgen.planning.experience import host_class, model_of

    if not wanted or latency is not None or not target.is_host or os.environ.get("CI") or not _is_writable():
        return False
    return model_of(target, host_class()) is None


def calibrate_here(target: Target) -> None:
    """Calibrates this machine, and says so. What fails is told, too: no command needs times.

    Raises KeyboardInterrupt at Ctrl-C, which ends the command; what was measured is kept.
    """
    typer.echo(
        f"nobody has measured this processor yet: doing so, for {SECONDS:.0f} s, once; --no-calibrate leaves it out",
        err=True,
    )
    from pconvgen.devices import get_device
    from pconvgen.errors import PconvgenError
    from pconvgen.report.calibration import measuring, result

    try:
        found = measuring(target, get_device("local"), SECONDS, "calibrating")
    except PconvgenError as error:
        typer.echo(f"that failed, and times are not known: {error}", err=True)
        return
    if found.interrupted:
        raise KeyboardInterrupt
    typer.echo(result(found), err=True)


def _is_writable() -> bool:
    """Whether anything can be kept in the cache."""
    from pconvgen.files import user_cache

    at = user_cache()
    while not at.exists():
        at = at.parent
    return os.access(at, os.W_OK)
