"""Tuning a network: which trial to measure next, until time or trials run out.

    measure the default schedule of every layer
    repeat:
        fit the ranker to all trials
        take the layer in which the network is predicted to gain most
        build and measure its most promising trials, and one that is there to be learned from

How promising a trial is follows from its predicted cost, and from how far predictions of this device were off so far:
a ranker that was taught by other devices is not believed before it has been right.

Trials are built while the ones before them are measured, if that is elsewhere: on this machine the two take turns, as
cores share caches and, where they are threads of one core, its arithmetic. Everything measured is recorded at once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pconvgen.devices import Model
from pconvgen.latency.ranker import Ranker
from pconvgen.records.describe import Described, describe_choice, describe_target
from pconvgen.records.facts import device_facts, versions
from pconvgen.records.record import Failure, Record, isa_of, target_key
from pconvgen.templates.choice import Choice
from pconvgen.tuning.builder import TIMEOUT_S, Build, Builder
from pconvgen.tuning.doubt import Doubt
from pconvgen.tuning.runner import EVICTED, Runner, Sample
from pconvgen.tuning.task import Task
from pconvgen.values.target import Target

BATCH = 4
"""Trials of a layer before the next layer is chosen."""
REFIT = 16
"""New trials after which the ranker is fitted again; of the first ones, after as many as there were."""
SETTLED = 0.002
"""A network that is predicted to gain less than this share by a layer's next trials leaves that layer alone."""
DEVIATIONS = 2.0
"""How far off predictions are taken to be: a trial may cost as much less as that."""
PATIENCE = 24
"""Trials of a layer without a better one, after which it is left alone."""


@dataclass
class Progress:
    """What is known of one task.

    Attributes
    ----------
    task: the task.
    descriptions: of its workload, layouts and weight, for records.
    untried: choices without a record, with their descriptions.
    kinds: how many choices there are of each kind, tried or not, see `_kind`.
    costs: of trials that have figures, in the order of measurement, the default first where it has them.
    default: cost of the default schedule, None before it is measured and where it failed.
    failures: trials without figures, by kind.
    """

    task: Task
    descriptions: Described
    untried: list[tuple[Choice, dict[str, Any]]]
    kinds: Counter[tuple[Any, ...]]
    costs: list[float] = field(default_factory=list)
    default: float | None = None
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The lowest cost; None before there is one."""
        return min(self.costs, default=None)

    @property
    def stale(self) -> int:
        """Trials since the best one."""
        return len(self.costs) - 1 - int(np.argmin(self.costs)) if self.costs else 0


@dataclass(frozen=True)
class TuningBudget:
    """When to stop: after so many trials, or seconds."""

    trials: int | None = None
    seconds: float | None = None


class Proposal(NamedTuple):
    """What to measure next.

    Attributes
    ----------
    progress: of the task.
    choice, described: the schedule, and as records have it.
    predicted: its cost by the ranker; None where that knows nothing of the device yet.
    """

    progress: Progress
    choice: Choice
    described: dict[str, Any]
    predicted: float | None = None


@dataclass(frozen=True)
class _Trial:
    """A proposal that is being built or measured."""

    proposal: Proposal
    build: Build


def _measured(trial: _Trial, library: Model, runner: Runner) -> Sample | Failure:
    try:
        return runner.measure(trial.proposal.progress.task, library)
    finally:
        library.path.unlink(missing_ok=True)


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for when something is raised: they end with the device's session."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Tuner:
    """Tunes the tasks of a network on one device.

    Parameters
    ----------
    tasks: of the network, of one target.
    model: what the records name as the model.
    runners: measure, all at the same time, on devices that are alike.
    append: takes every record, at once.
    known: records of before; those of this target and device count as measured.
    others: more records, that do not count as measured even if they are of this target and device.

    Attributes
    ----------
    progress: of each task, by its key.
    prior: how many of the records that do not count as measured are of this instruction set and unit: the ranker learns
        from them, too.
    trials: measured by `run`.
    failures: those of them without figures, by kind.
    doubt: how far predictions were off.
    """

    def __init__(
        self, tasks: Sequence[Task], model: str, target: Target, runners: Sequence[Runner],
        append: Callable[[Record], None], known: Iterable[Record] = (), others: Iterable[Record] = (),
    ) -> None:  # fmt: skip
        self._model, self._runners, self._append = model, runners, append
        runner = runners[0]
        self._about = (describe_target(target), device_facts(runner.device, runner.cores, EVICTED), versions())
        self.progress = {task.key: self._start(task) for task in tasks}
        self.trials = 0
        self.failures: Counter[str] = Counter()
        self.doubt = Doubt()
        self._records: list[Record] = []
        self._fitted = 0
        self._rng = np.random.default_rng(0)
        prior = list(others)
        for record in known:
            mine = (target_key(record.target), record.device["class"], record.threads)
            if mine == (target_key(self._about[0]), self._about[1]["class"], runner.threads):
                self._take(record)
            else:
                prior.append(record)
        self._ranker = Ranker([r for r in prior if isa_of(r.target) == target.core.isa.name and r.unit == self.unit])
        self.prior = self._ranker.prior

    def _start(self, task: Task) -> Progress:
        described = task.layer.described(task.places)
        choices = [(choice, describe_choice(choice)) for choice in task.choices]
        return Progress(task, described, choices, Counter(_kind(trial) for _, trial in choices))

    def run(self, budget: TuningBudget, folder: Path, report: Callable[[Tuner, float], None]) -> None:
        """Measures until the budget is spent or nothing promises a gain; `report(self, share spent)` after each trial.

        `folder` is for libraries, which are removed once they were measured.
        """
        started = time.monotonic()

        def spent(more: int = 0) -> float:
            parts = [(self.trials + more) / budget.trials] if budget.trials else []
            parts += [(time.monotonic() - started) / budget.seconds] if budget.seconds else []
            return max(parts, default=0.0)

        with (
            Builder({key: progress.task for key, progress in self.progress.items()}, folder) as builder,
            _pool(len(self._runners)) as pool,
        ):
            here = self._runners[0].device.name == "local"
            waiting: list[_Trial] = []
            running: dict[Future[Sample | Failure], tuple[_Trial, Runner]] = {}
            idle = list(self._runners)
            number = 0
            while True:
                builds = not here or not (waiting or running)
                while builds and len(waiting) < BATCH and spent() < 1:
                    open_trials = [*waiting, *(trial for trial, _ in running.values())]
                    batch = self._propose(BATCH, [trial.proposal.progress for trial in open_trials])
                    if not batch:
                        break
                    for proposal in batch:
                        number += 1
                        build = builder.start(proposal.progress.task.key, proposal.choice, number)
                        waiting.append(_Trial(proposal, build))
                if here:
                    wait([trial.build.library for trial in waiting], TIMEOUT_S)
                while waiting and idle and spent(len(running)) < 1:
                    trial = waiting.pop(0)
                    built = builder.finish(trial.build)
                    if isinstance(built, Failure):
                        self._finish(trial.proposal, built)
                        report(self, spent())
                    else:
                        runner = idle.pop()
                        running[pool.submit(_measured, trial, built, runner)] = trial, runner
                if not running:
                    if not waiting or spent() >= 1:
                        return
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    trial, runner = running.pop(future)
                    idle.append(runner)
                    self._finish(trial.proposal, future.result())
                    report(self, spent())

    def _finish(self, proposal: Proposal, measured: Sample | Failure) -> None:
        """Keeps what was found."""
        record = self._record(proposal, measured)
        self._append(record)
        self._take(record)
        self.trials += 1
        if record.failure is not None:
            self.failures[record.failure.kind] += 1
        elif proposal.predicted is not None:
            assert record.cost is not None
            self.doubt.compare(proposal.predicted, record.cost)

    def _propose(self, count: int, building: Sequence[Progress]) -> list[Proposal]:
        """The next trials, of one task: its default; or the most promising ones, and some that are there to be learned
        from, of kinds that were not tried, or by chance: of them the ranker would know nothing otherwise."""
        # The first trials tell how fast the device is: until then, predictions are not of its unit.
        if len(self._records) - self._fitted >= min(REFIT, max(1, self._fitted)):
            self._ranker.fit(self._records)
            self._fitted = len(self._records)
        open_tasks = [p for p in self.progress.values() if p.untried and p.stale < PATIENCE]
        fresh = [p for p in open_tasks if not p.costs and not p.failures and p not in building]
        if fresh:
            chosen = max(fresh, key=lambda p: p.task.count * p.untried[0][0].cycles)
            return self._take_out(chosen, [0], None)
        total = sum(p.task.count * (p.best or 0.0) for p in self.progress.values())
        ranked = [(p, *self._costs(p)) for p in open_tasks]
        gains = [(self._gain(p, hoped), p, costs, hoped) for p, costs, hoped in ranked]
        # Before the ranker has learned of this device, it cannot tell that there is nothing to gain.
        settled = SETTLED if self._ranker.learned else -math.inf
        gains = [found for found in gains if found[0] > settled * total or not found[1].costs]
        if not gains:
            return []
        _, chosen, costs, hoped = max(gains, key=lambda found: found[0])
        order = np.argsort(hoped, kind="stable").tolist()
        news = self._news(chosen, costs)[: count // 2]
        if not news and len(order) > count:
            news = [int(self._rng.choice(order[count - 1 :]))]
        best = [number for number in order if number not in news]
        return self._take_out(chosen, [*best[: count - len(news)], *news], costs if self._fitted else None)

    def _take_out(
        self, progress: Progress, numbers: Sequence[int], costs: NDArray[np.float64] | None
    ) -> list[Proposal]:
        """Proposals for some of the untried choices of a task, which are untried no more."""
        found = [
            Proposal(progress, *progress.untried[number], None if costs is None else float(costs[number]))
            for number in numbers
        ]
        progress.untried = [pair for number, pair in enumerate(progress.untried) if number not in numbers]
        return found

    def _news(self, progress: Progress, costs: NDArray[np.float64]) -> list[int]:
        """The best untried choice of each kind that was not tried and may hold the best one, the most likely first."""
        limit = float(costs.min()) * math.exp(DEVIATIONS * self.doubt.deviation)
        found: dict[tuple[Any, ...], int] = {}
        left = Counter(_kind(trial) for _, trial in progress.untried)
        for number in np.argsort(costs, kind="stable").tolist():
            kind = _kind(progress.untried[number][1])
            if costs[number] <= limit and left[kind] == progress.kinds[kind]:
                found.setdefault(kind, number)
        return list(found.values())

    def _costs(self, progress: Progress) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted costs of what is untried, and what they may be, as wrong as predictions were so far."""
        pairs = [(trial, choice.cycles) for choice, trial in progress.untried]
        costs, spread = self._ranker.predict(*progress.descriptions, pairs)
        return costs, costs * np.exp(-DEVIATIONS * np.hypot(spread, self.doubt.deviation))

    def _gain(self, progress: Progress, costs: NDArray[np.float64]) -> float:
        """How much of its cost the network is predicted to lose by the best untried trial."""
        if progress.best is None:
            return float(progress.task.count * costs.min())
        return float(progress.task.count * (progress.best - costs.min()))

    def _record(self, proposal: Proposal, measured: Sample | Failure) -> Record:
        progress, choice, trial, _ = proposal
        workload, places, weight = progress.descriptions
        target, device, versions_ = self._about
        sample = Sample(self.unit, (), {}) if isinstance(measured, Failure) else measured
        return Record(
            model=self._model,
            workload=workload,
            places=places,
            weight=weight,
            trial=trial,
            predicted_cycles=choice.cycles,
            target=target,
            device={**device, **sample.conditions},
            threads=self._runners[0].threads,
            versions=versions_,
            unit=sample.unit,
            repeats=sample.repeats,
            failure=measured if isinstance(measured, Failure) else None,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def cost(self, task: str, choice: Choice) -> float:
        """What a choice was measured to cost, the lowest if more than once; infinite where it was not or failed."""
        trial = describe_choice(choice)
        costs = [record.cost for record in self._records if record.task == task and record.trial == trial]
        return min((cost for cost in costs if cost is not None), default=math.inf)

    @property
    def unit(self) -> str:
        """What costs are in."""
        return self._runners[0].device.unit

    def _take(self, record: Record) -> None:
        """Counts a record, of now or of before."""
        self._records.append(record)
        progress = self.progress.get(record.task)
        if progress is None:
            return
        progress.untried = [pair for pair in progress.untried if pair[1] != record.trial]
        if record.failure is not None:
            progress.failures[record.failure.kind] = progress.failures.get(record.failure.kind, 0) + 1
            return
        assert record.cost is not None
        progress.costs.append(record.cost)
        if record.trial == describe_choice(progress.task.choices[0]):
            progress.default = record.cost


def _kind(trial: dict[str, Any]) -> tuple[Any, ...]:
    """What schedules have in common that differ in blocks and loop orders only: encoding, tile, channels in parts."""
    tile = (trial.get("lanes"), trial.get("vectors"), trial["max_group"])
    return (trial["template"], trial["structure"], *tile, bool(trial.get("channels")))
