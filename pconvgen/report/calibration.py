"""A calibration while it lasts, and what it has found."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pconvgen.calibration.session import Calibration, calibrate
from pconvgen.devices import Device
from pconvgen.values.target import Target


def measuring(target: Target, device: Device, seconds: float, what: str) -> Calibration:
    """Calibrates with a bar on standard error, if that is a terminal. Raises what `calibrate` raises."""
    console = Console(stderr=True, markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=1.0)
        return calibrate(
            target,
            device,
            seconds,
            lambda trials, spent: bar.update(task, completed=min(1.0, spent), description=f"{what}: {trials} kernels"),
        )


def result(found: Calibration) -> str:
    """One line: what was learned from, and where it is."""
    model = found.model
    return (
        f"learned from {model.records} kernels of {model.tasks} layers on {model.device_class}; half of those left out"
        f" are predicted within {model.error or 0.0:.0%}; kept in {found.path}"
    )
