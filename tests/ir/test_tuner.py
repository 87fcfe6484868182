"""What the tuner measures next, on a device that is as fast as was predicted, or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pconvgen.devices.units import SECONDS
from pconvgen.frontend import load_model
from pconvgen.latency.ranker import ENOUGH, Ranker
from pconvgen.planning.experience import Experience
from pconvgen.records.describe import describe_choice
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from pconvgen.tuning import doubt
from pconvgen.tuning import tuner as tuning
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.contenders import Contenders, contenders
from pconvgen.tuning.runner import Sample
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import Progress, Tuner
from pconvgen.values.target import Target

TARGET = get_target("cortex-a76")


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 1),
        nn.Flatten(),
        nn.Linear(32 * 144, 10),
    )
    return tasks_of(load_model(model.eval(), example=(torch.zeros(1, 3, 12, 12),)), TARGET)[0]


Clock = Callable[[Progress, Any], float]


def as_predicted(_: Progress, choice: Any) -> float:
    return 1e-9 * choice.cycles


def tuner_of(tasks: list[Task], strategy: Callable[..., Tuner] = Tuner) -> Tuner:
    runner: Any = SimpleNamespace(
        device=SimpleNamespace(
            name="test", counts=False, unit=SECONDS, facts=lambda: {"device": "test", "cpu": "none"}
        ),
        cores=None,
        threads=1,
    )
    return strategy(tasks, "model", TARGET, [runner], append=lambda _: None)


def tuned(tasks: list[Task], clock: Clock, most: int = 2000) -> tuple[Tuner, list[tuple[str, Any]]]:
    """Measures, by a clock of the test's, until nothing promises a gain: what was tried, in order."""
    tuner, tried = tuner_of(tasks), []
    while len(tried) < most and (batch := tuner._propose(tuning.BATCH, [])):
        for proposal in batch:
            tried.append((proposal.progress.task.key, proposal.described))
            tuner._finish(proposal, Sample(SECONDS, (clock(proposal.progress, proposal.choice),) * 3, {}))
    return tuner, tried


def test_defaults_come_first_and_nothing_twice(tasks: list[Task]) -> None:
    tuner, tried = tuned(tasks, as_predicted)
    count = len(tasks)
    order = sorted(tasks, key=lambda task: -task.count * task.choices[0].cycles)
    assert [key for key, _ in tried[:count]] == [task.key for task in order]
    assert all(progress.default == progress.costs[0] for progress in tuner.progress.values())
    assert len({(key, str(described)) for key, described in tried}) == len(tried)


def test_a_layer_without_better_trials_is_left_alone(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SETTLED", -1.0)
    tuner, tried = tuned(tasks, as_predicted)
    for progress in tuner.progress.values():
        assert not progress.untried or tuning.PATIENCE <= progress.stale < tuning.PATIENCE + tuning.BATCH
    monkeypatch.setattr(tuning, "PATIENCE", 4)
    assert len(tuned(tasks, as_predicted)[1]) < len(tried)


def test_a_network_that_gains_too_little_is_settled(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    # Defaults are what is predicted to be best: without doubts there is nothing to gain, once that was learned.
    monkeypatch.setattr(doubt, "FIRST", 0.0)
    assert ENOUGH <= len(tuned(tasks, as_predicted)[1]) <= ENOUGH + tuning.BATCH
    monkeypatch.undo()
    counts = []
    for settled in (0.2, 0.002):
        monkeypatch.setattr(tuning, "SETTLED", settled)
        counts.append(len(tuned(tasks, as_predicted)[1]))
    assert len(tasks) <= counts[0] < counts[1]


def test_the_layer_that_gains_most_is_next(tasks: list[Task]) -> None:
    """Defaults of one layer are ten times slower than predicted."""
    slow = max(tasks, key=lambda task: len(task.choices)).key

    def clock(progress: Progress, choice: Any) -> float:
        return (10 if progress.task.key == slow and not progress.costs else 1) * as_predicted(progress, choice)

    _, tried = tuned(tasks, clock, most=len(tasks) + tuning.BATCH)
    assert {key for key, _ in tried[len(tasks) :]} == {slow}


def test_the_ranker_learns_again_after_some_trials(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []
    monkeypatch.setattr(Ranker, "fit", lambda _self, records: fits.append(len(records)))
    monkeypatch.setattr(tuning, "SETTLED", -1.0)
    _, tried = tuned(tasks, as_predicted, most=70)
    assert fits[0] == 1, "predictions are not in seconds before"
    assert len(fits) >= len(tried) // (tuning.REFIT + tuning.BATCH)
    assert all(min(before, tuning.REFIT) <= after - before < before + tuning.REFIT for before, after in pairwise(fits))


def test_a_network_of_few_layers_is_tuned_beyond_its_defaults(tasks: list[Task]) -> None:
    """Schedules that are predicted to be second are twice as fast."""

    def clock(progress: Progress, choice: Any) -> float:
        return as_predicted(progress, choice) / (2 if choice is progress.task.choices[1] else 1)

    tuner, tried = tuned(tasks, clock)
    assert len(tried) > len(tasks) < tuning.REFIT
    for progress in tuner.progress.values():
        second = progress.task.choices[1]
        assert progress.best == pytest.approx(clock(progress, second))


@pytest.fixture(scope="module")
def pruned() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1)).eval()
    sparsify(model, "simd_block", 0.125, ("0",))
    ((task,), _) = tasks_of(load_model(model, example=(torch.zeros(1, 64, 56, 56),)), TARGET)
    return task


def kind_of(choice: Any) -> tuple[Any, ...]:
    return tuning._kind(describe_choice(choice))


@pytest.mark.parametrize("seed", range(3))
def test_a_device_that_nobody_knows_is_explored(pruned: Task, seed: int) -> None:
    """Kinds of schedules are up to twice as fast or slow as predicted: the best one is found nevertheless."""
    kinds = sorted({kind_of(choice) for choice in pruned.choices})
    assert len(kinds) > tuning.BATCH
    factors = dict(zip(kinds, np.exp(np.random.default_rng(seed).normal(0, 0.35, len(kinds))), strict=True))

    def clock(_: Progress | None, choice: Any) -> float:
        return float(1e-9 * choice.cycles * factors[kind_of(choice)])

    tuner, tried = tuned([pruned], clock, most=60)
    assert tuner.progress[pruned.key].best == pytest.approx(min(clock(None, c) for c in pruned.choices), rel=0.03)
    assert len(tried) < len(pruned.choices) / 2
    assert len({(key, str(described)) for key, described in tried}) == len(tried)


def test_a_device_that_is_as_predicted_is_left_alone_soon(pruned: Task) -> None:
    tuner, tried = tuned([pruned], as_predicted)
    assert len(tried) <= tuning.PATIENCE + tuning.BATCH
    assert tuner.doubt.deviation < 0.2


def nothing_known(target: Target) -> Experience:
    return Experience(target, "test", (), None)


def test_contenders_are_the_best_of_each_kind_of_kernel(pruned: Task) -> None:
    found = contenders(pruned, nothing_known(TARGET))
    assert found[0] == pruned.choices[0]
    kinds = [(choice.candidate.structure, choice.family.name) for choice in found]
    assert len(set(kinds)) == len(kinds) > 1
    for choice, kind in zip(found, kinds, strict=True):
        alike = [c for c in pruned.choices if (c.candidate.structure, c.family.name) == kind]
        assert choice.cycles == min(c.cycles for c in alike)
        assert choice.cycles < 2 * found[0].cycles


def test_what_is_clear_is_not_measured(pruned: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pconvgen.tuning.contenders.FIRST", 0.001)
    assert contenders(pruned, nothing_known(TARGET)) == []


def test_each_contender_is_measured_once(pruned: Task) -> None:
    wanted = contenders(pruned, nothing_known(TARGET))
    tuner = tuner_of([pruned], partial(Contenders, nothing_known(TARGET)))
    tried = []
    while batch := tuner._propose(tuning.BATCH, []):
        tried += [proposal.choice for proposal in batch]
    assert tried == wanted
