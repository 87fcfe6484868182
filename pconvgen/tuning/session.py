"""`pconvgen tune` as a function: a model, a device and a file of records."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.devices import Device, Model
from pconvgen.errors import PconvgenError
from pconvgen.frontend import Imported
from pconvgen.matching.fused_ops import FusedOp
from pconvgen.planning.choose import layer_of
from pconvgen.records.facts import device_name
from pconvgen.records.kept import kept_model
from pconvgen.records.record import device_class
from pconvgen.records.store import RecordFile, read_records
from pconvgen.schedules.measured import records_of
from pconvgen.templates.layout.proposals import layouts
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.runner import ATTEMPTS, Runner
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import Tuner, TuningBudget
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload

Report = Callable[[Tuner, float], None]


@dataclass(frozen=True)
class Tuned:
    """What tuning has found.

    Attributes
    ----------
    tuner: the progress of each task.
    split: names of layers that were left as they are, as two kernels compute them.
    interrupted: whether Ctrl-C ended it before the budget was spent.
    """

    tuner: Tuner
    split: tuple[str, ...]
    interrupted: bool


def tune(
    imported: Imported,
    target: Target,
    device: Device,
    records: Path,
    budget: TuningBudget,
    *,
    threads: int = 1,
    cores: Sequence[int] | None = None,
    cool_down_s: float = 0.0,
    report: Report = lambda _tuner, _spent: None,
    strategy: Callable[..., Tuner] = Tuner,
) -> Tuned:
    """Measures schedules of a model's layers on a device and appends what it finds to `records`.

    What the file has of this target and device counts as measured, so that tuning goes on where it ended; so does what
    its calibration has measured. What there is of others, and what pconvgen brings, helps to rank untried schedules and
    is not used for more. `strategy` decides what is tried next.

    Raises
    ------
    PconvgenError: the model cannot be lowered, the device cannot be used, the file cannot be written, or nothing that
        was measured worked; what was measured is in the file.
    """
    tasks, split = tasks_of(imported, target)
    tuner, interrupted = measure(
        tasks, Path(imported.source).name, target, device, records, budget, threads=threads, cores=cores,
        cool_down_s=cool_down_s, report=report, strategy=strategy,
    )  # fmt: skip
    return Tuned(tuner, tuple(split), interrupted)


def measure(
    tasks: Sequence[Task],
    model: str,
    target: Target,
    device: Device,
    records: Path,
    budget: TuningBudget,
    *,
    threads: int = 1,
    cores: Sequence[int] | None = None,
    cool_down_s: float = 0.0,
    report: Report = lambda _tuner, _spent: None,
    strategy: Callable[..., Tuner] = Tuner,
    attempts: int = ATTEMPTS,
) -> tuple[Tuner, bool]:
    """As `tune`, of tasks that records name `model`; what it has found, and whether Ctrl-C ended it.

    A trial whose repeats differ is measured again, `attempts` times in all.

    Raises
    ------
    PconvgenError: the device cannot be used, the file cannot be written, or nothing that was measured worked; what was
        measured is in the file.
    """
    reason = device.available()
    if reason:
        raise PconvgenError("the device cannot be used", file=device.name, found=reason)
    calibration = kept_model(target, device_class(device_name(device), threads)).with_suffix(".jsonl")
    files = {records.resolve(), calibration.resolve()}
    known = [r for path in sorted(files) if path.exists() and path.stat().st_size for r in read_records(path)]
    others = [record for path in records_of(target.core.isa.name) for record in read_records(path)]
    with tempfile.TemporaryDirectory(prefix="pconvgen-tune-") as name:
        folder = Path(name)
        kept = reference_library(target, folder)
        file, interrupted = RecordFile(records), False
        try:
            with ExitStack() as sessions:
                devices = [sessions.enter_context(device.session()) for _ in range(device.slots)]
                runners = [Runner(ready, kept, threads, cores, cool_down_s, attempts) for ready in devices]
                tuner = strategy(tasks, model, target, runners, file.append, known=known, others=others)
                try:
                    tuner.run(budget, folder, report)
                except KeyboardInterrupt:
                    interrupted = True
        finally:
            file.close()
    if tuner.trials and tuner.trials == tuner.failures.total():
        raise PconvgenError(
            "no trial worked",
            file=records,
            found=", ".join(f"{count} x {kind}" for kind, count in sorted(tuner.failures.items())),
            remedy="the records have the text of each failure; pconvgen doctor checks the device",
        )
    return tuner, interrupted


def reference_library(target: Target, folder: Path) -> tuple[Model, Mapping[str, NDArray[Any]]]:
    """The library of `reference`, which is built in a folder, with its inputs."""
    steady = reference(target)
    return steady.library(steady.choices[0], folder / "reference.so"), steady.inputs


def reference(target: Target) -> Task:
    """A small dense layer that is always the same, by which a device shows that it is as fast as before."""
    workload = ConvWorkload(1, 64, 28, 28, 64, (3, 3), padding=(1, 1, 1, 1))
    weight = np.random.default_rng(0).standard_normal(workload.weight_shape).astype(np.float32)
    fused_op = FusedOp(None, "conv2d", None, weight, None, None, None, frozenset(), workload, ())
    source = layouts(workload, target.core.isa)[0]
    places = Places(source, plain_layout(64, 28, 28))
    return Task(("reference",), layer_of(fused_op, "reference"), target, places, None, (0, 0))
