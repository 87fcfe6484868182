"""`pconvgen calibrate` as a function: a minute of measuring makes a model of a device's times, which is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pconvgen.calibration.layers import calibration_tasks
from pconvgen.devices import Device
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.latency.model import LatencyModel, fit
from pconvgen.records.facts import device_name
from pconvgen.records.kept import kept_model, make_folder
from pconvgen.records.record import device_class
from pconvgen.records.store import read_records
from pconvgen.schedules.measured import models_of
from pconvgen.tuning.sampler import Sampler
from pconvgen.tuning.session import measure
from pconvgen.tuning.tuner import TuningBudget
from pconvgen.values.target import Target

NAME = "calibration"
"""What its records name as the model."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was found.

    Attributes
    ----------
    model: of the device's times.
    path: where it is kept; `experience` finds it there.
    records: where its records are.
    interrupted: whether Ctrl-C ended the measuring early.
    """

    model: LatencyModel
    path: Path
    records: Path
    interrupted: bool


def calibrate(
    target: Target,
    device: Device,
    seconds: float,
    report: Callable[[int, float], None] = lambda _trials, _spent: None,
) -> Calibration:
    """Measures layers of all kinds on a device for some seconds, learns from them, and keeps both for later.

    What was kept before is gone on from; so is a model of other cores with the same instructions, where that helps.
    `report(trials, share of the time spent)` is called after each trial.

    Raises
    ------
    UsageError: the device has no clock.
    PconvgenError: the device cannot be used, the cache cannot be written, or too little was measured to learn from;
        what was measured is kept.
    KeyboardInterrupt: Ctrl-C came before that.
    """
    if device.counts:
        raise UsageError(
            "a device without a clock cannot be calibrated", found=device.name, remedy="name one that has one"
        )
    path = kept_model(target, device_class(device_name(device), 1))
    records = path.with_suffix(".jsonl")
    make_folder()
    _, interrupted = measure(
        calibration_tasks(target), NAME, target, device, records, TuningBudget(seconds=seconds), strategy=Sampler,
        report=lambda tuner, spent: report(tuner.trials, spent), attempts=1,  # more layers teach more
    )  # fmt: skip
    others = [LatencyModel.load(other) for other in models_of(target.core.isa.name)]
    try:
        model = fit(list(read_records(records)), bases=others)
    except PconvgenError as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    model.save(path)
    return Calibration(model, path, records, interrupted)
