"""Measures trials: whether they compute what they must, and how long they take when the machine is as it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pconvgen.devices.device import BenchResult, Device, Model
from pconvgen.devices.units import CYCLES, INSTRUCTIONS, SECONDS
from pconvgen.errors import DeviceLostError, PconvgenError
from pconvgen.records.record import Failure
from pconvgen.tuning.task import Task

SECONDS_OF_TRIAL = 0.06
"""Of the repeats of one trial."""
EVICTED = 8 << 20
"""Bytes that go through the caches before each repeat, as other layers' do in a network, beside the weights of layers
that are alike: repeats that follow each other find their weights in the nearest cache, which no network has."""
MOST_EVICTED = 64 << 20
"""More changes nothing."""
SPREAD = 0.04
"""Half of the repeats may differ by this share of their median; of a trial that spreads more, more are measured."""
DRIFT = 0.04
"""How much longer the reference may take than it ever did; above that, the machine is busy or hot."""
EVERY = 8
"""Trials between two measurements of the reference."""
ATTEMPTS = 3
"""How often something is measured again before it counts as it is."""
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""Largest error of a trial, relative to the largest output."""


COOL_S = 5.0
"""For a device whose clock was lowered."""


@dataclass(frozen=True)
class Sample:
    """What a trial costs.

    Attributes
    ----------
    unit, repeats: as of a Record.
    conditions: under which it was measured, see `BenchResult`.
    """

    unit: str
    repeats: tuple[float, ...]
    conditions: Mapping[str, Any]


@dataclass
class Runner:
    """Measures on one device.

    Attributes
    ----------
    device: where.
    threads, cores: of the device.
    cool_down_s: how long to wait before each trial.
    attempts: how often a trial is measured until its repeats agree, and the reference until it is as fast as it was.
    reference: a library that is known to work, with its inputs. It tells drift, and whether a trial that fails or the
        device is at fault.
    """

    device: Device
    reference: tuple[Model, Mapping[str, np.ndarray]]
    threads: int = 1
    cores: Sequence[int] | None = None
    cool_down_s: float = 0.0
    attempts: int = ATTEMPTS
    _best: float | None = field(default=None, init=False)
    _since: int = field(default=0, init=False)

    def measure(self, task: Task, model: Model) -> Sample | Failure:
        """What a trial's library costs, or why that is not known.

        Raises
        ------
        PconvgenError: the device fails with every library.
        """
        self._settle()
        time.sleep(self.cool_down_s)
        found: BenchResult | None = None
        for _ in range(self.attempts):
            try:
                outputs, result = self._run(model, task.inputs, task.count - 1)
            except DeviceLostError:
                self._reference()  # raises when there is no other one that answers
                continue
            except PconvgenError as error:
                self._reference()  # raises when it is the device that fails
                return Failure("time-out" if "did not end" in error.message else "crash", str(error))
            wrong = task.error(outputs["output"])
            if not wrong <= TOLERANCE[task.workload.precision.arithmetic]:
                return Failure("wrong result", f"relative error {wrong:.1e}")
            if result.cycles is not None:
                return Sample(CYCLES, (result.cycles,), result.conditions)
            if result.instructions is not None:
                return Sample(INSTRUCTIONS, (float(result.instructions),), result.conditions)
            if found is None or (result.throttled, _median(result)) < (found.throttled, _median(found)):
                found = result
            if result.throttled:
                time.sleep(COOL_S)
            elif (result.spread or 0.0) <= SPREAD:
                break
        if found is None:
            return Failure("crash", f"{self.attempts} devices were lost while they ran it")
        throttled = {"throttled": True} if found.throttled else {}
        return Sample(SECONDS, tuple(value / 1e3 for value in found.times_ms), {**found.conditions, **throttled})

    def _run(
        self, model: Model, inputs: Mapping[str, np.ndarray], others: int = 0
    ) -> tuple[dict[str, Any], BenchResult]:
        """Outputs and times of a library in a network that has so many others like it."""
        evict = min(MOST_EVICTED, EVICTED + others * model.path.stat().st_size) if model.path.exists() else 0
        return self.device.measure(
            model, inputs, threads=self.threads, cores=self.cores, seconds=SECONDS_OF_TRIAL, evict=evict
        )

    def _reference(self) -> float:
        """Milliseconds of the reference; none where the device counts. Raises PconvgenError when it fails."""
        try:
            result = self._run(*self.reference)[1]
        except PconvgenError as error:
            raise PconvgenError(
                "the device does not work any more",
                file=self.device.name,
                found=str(error),
                remedy="check it with pconvgen doctor, then run the command again: it goes on where it ended",
            ) from error
        return result.median_ms or 0.0

    def _settle(self) -> None:
        """Waits, for a while, until the reference takes no longer than it did."""
        if self.device.counts:
            return
        self._since -= 1
        if self._since > 0:
            return
        self._since = EVERY
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(0.25 * 2**attempt)
            taken = self._reference()
            self._best = taken if self._best is None else min(self._best, taken)
            if taken <= self._best * (1 + DRIFT):
                return


def _median(result: BenchResult) -> float:
    assert result.median_ms is not None
    return result.median_ms
