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


def calibrate_first(target: Target, *, wanted: bool, latency: Path | None = None) -> None:
    """Calibrates this machine where it is the target, and nothing was learned of it; says what it does, or why not.

    A machine whose cache cannot be written, and one that tests for others (which set CI), is left as it is. So is what
    fails: no command needs times.
    """
    if not wanted or latency is not None or not target.is_host:
        return
    from pconvgen.planning.experience import experience

    if experience(target).model is not None:
        return
    reason = _reason()
    if reason:
        typer.echo(f"nobody has measured this processor yet, and {reason}: times are not known", err=True)
        return
    typer.echo(
        f"nobody has measured this processor yet: doing so, for {SECONDS:.0f} s, once; --no-calibrate leaves it out",
        err=True,
    )
    from pconvgen.devices import get_device
    from pconvgen.errors import PconvgenError
    from pconvgen.report.calibration import measuring, result

    try:
        typer.echo(result(measuring(target, get_device("local"), SECONDS, "calibrating")), err=True)
    except PconvgenError as error:
        typer.echo(f"that failed, and times are not known: {error}", err=True)


def _reason() -> str | None:
    """Why nothing can be kept here."""
    from pconvgen.files import user_cache

    if os.environ.get("CI"):
        return "CI is set"
    at = user_cache()
    while not at.exists():
        at = at.parent
    return None if os.access(at, os.W_OK) else f"{at} cannot be written"
