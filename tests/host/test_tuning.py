"""Tuning on this machine and under emulation: trials are measured, kept, gone on from and used."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Invoke, listen_to_interrupts
from torch import nn

import pconvgen
from pconvgen.devices import Model, get_device, static_cycles
from pconvgen.devices.local import LocalDevice
from pconvgen.devices.units import CYCLES, INSTRUCTIONS
from pconvgen.errors import PconvgenError, PconvgenWarning
from pconvgen.frontend import Imported
from pconvgen.planning.experience import experience
from pconvgen.records.describe import describe_choice
from pconvgen.records.record import Failure, NetworkRecord
from pconvgen.records.store import read_all, read_records
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from pconvgen.tuning import runner
from pconvgen.tuning.builder import Builder
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.runner import Runner
from pconvgen.tuning.session import tune
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import TuningBudget
from tests.networks import relative_error

pytestmark = pytest.mark.host

HOST = get_target("host")


@pytest.fixture(autouse=True)
def _any_times_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on times: on a busy machine most of a test would be waiting for a quiet one."""
    for share in ("DRIFT", "SPREAD"):
        monkeypatch.setattr(runner, share, math.inf)


class Small(nn.Module):
    """Layers of several kinds, some of which are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.alike = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])
        self.point = nn.Conv2d(16, 32, 1)
        self.strided = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.classes = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        for layer in self.alike:
            x = (layer(x) + x).relu()
        x = nn.functional.silu(self.strided(self.point(x).relu()))
        return self.classes((self.depthwise(x) + x).mean((2, 3)))


def small(structure: str = "pattern") -> Imported:
    torch.manual_seed(0)
    model = Small().eval()
    sparsify(model, structure, 0.3, ("alike.*", "strided", "point"))
    return pconvgen.load_model(model, example=(torch.zeros(1, 3, 20, 20),))


@pytest.mark.parametrize("structure", ["pattern", "simd_block"])
def test_every_kind_of_choice_computes_its_layer(structure: str, tmp_path: Path) -> None:
    tasks, split = tasks_of(small(structure), HOST)
    assert not split
    assert sum(task.count for task in tasks) == 8
    assert max(task.count for task in tasks) >= 2, "layers that are alike share a task"
    device, rng = get_device("local"), np.random.default_rng(0)
    for task in tasks:
        cycles = [choice.cycles for choice in task.choices]
        assert cycles == sorted(cycles)
        for index in {0, int(rng.integers(len(task.choices)))}:
            model = task.library(task.choices[index], tmp_path / "trial.so")
            assert task.error(device.run(model, task.inputs)["output"]) < 1e-5, (task.name, task.choices[index])


def test_records_are_kept_continued_and_used(tmp_path: Path) -> None:
    imported, path = small(), tmp_path / "records.jsonl"
    reports: list[float] = []
    tuned = tune(
        imported, HOST, get_device("local"), path, TuningBudget(trials=9), report=lambda _, spent: reports.append(spent)
    )
    records = list(read_records(path))
    assert len(records) == tuned.tuner.trials == len(reports) == 9
    assert all(record.cost is not None and record.unit == "seconds" for record in records)
    assert all(len(record.repeats) >= 10 for record in records)
    measured = [progress for progress in tuned.tuner.progress.values() if progress.costs]
    assert len(measured) >= 6, "every layer's default comes first"
    assert all(progress.default is not None for progress in measured)

    again = tune(imported, HOST, get_device("local"), path, TuningBudget(trials=3))
    trials = [(record.task, json.dumps(record.trial, sort_keys=True)) for record in read_records(path)]
    assert len(trials) == 12
    assert len(set(trials)) == 12, "nothing is measured twice"
    assert sum(len(progress.costs) for progress in again.tuner.progress.values()) == 12

    compiled = pconvgen.compile(imported, records=path)
    assert relative_error(compiled) < 1e-5
    said = [decision.reason.startswith("measured: ") for decision in compiled.decisions]
    assert sum(said) == sum(progress.task.count for progress in again.tuner.progress.values() if progress.costs)


def test_the_fastest_record_is_used(tmp_path: Path) -> None:
    imported, path = small(), tmp_path / "records.jsonl"
    tune(imported, HOST, get_device("local"), path, TuningBudget(trials=7))
    records = list(read_records(path))
    tasks, _ = tasks_of(imported, HOST)
    task = next(task for task in tasks if task.name == "strided")
    # The slowest choice of all, said to be fastest, is what is used.
    mine = next(record for record in records if record.task == task.key)
    odd = replace(mine, trial=describe_choice(task.choices[-1]), repeats=(1e-9,))
    path.write_text("".join(record.to_line() for record in [*records, odd]))
    decision = next(d for d in pconvgen.compile(imported, records=path).decisions if d.name == "strided")
    assert decision.predicted_cycles == task.choices[-1].cycles
    # Of what is not legal, nothing is.
    wrong = replace(odd, trial={**odd.trial, "vectors": 999})
    path.write_text(wrong.to_line())
    plan = experience(HOST, path)(task.layer, HOST, task.places, slots=task.slots, first=task.first)
    assert not plan.decision.reason.startswith("measured")


def test_layers_with_other_patterns_share_records(tmp_path: Path) -> None:
    imported, path = small(), tmp_path / "records.jsonl"
    tune(imported, HOST, get_device("local"), path, TuningBudget(trials=3))
    record = next(read_records(path))
    task = max(tasks_of(imported, HOST)[0], key=lambda task: task.count)
    assert task.count >= 2
    choice = next(choice for choice in reversed(task.choices) if choice.candidate.structure == "pattern")
    about = dict(zip(("workload", "places", "weight"), task.layer.described(task.places), strict=True))
    path.write_text(replace(record, **about, trial=describe_choice(choice), repeats=(1e-9,)).to_line())
    decisions = pconvgen.compile(imported, records=path).decisions
    assert sum(decision.reason.startswith("measured: 0.000 ms") for decision in decisions) == task.count


def test_records_of_others_are_not_used(tmp_path: Path) -> None:
    imported, path = small(), tmp_path / "records.jsonl"
    tune(imported, HOST, get_device("local"), path, TuningBudget(trials=7))
    records = list(read_records(path))
    for change in (
        {"target": {**records[0].target, "cpu": "another"}},
        {"device": {**records[0].device, "class": "local: another"}},
        {"threads": 2},
    ):
        path.write_text("".join(replace(record, **change).to_line() for record in records))
        with pytest.warns(PconvgenWarning, match="no record"):
            compiled = pconvgen.compile(imported, records=path)
        assert not any(decision.reason.startswith("measured") for decision in compiled.decisions)


def test_failures_are_classified(tmp_path: Path) -> None:
    tasks, _ = tasks_of(small(), HOST)
    task = tasks[1]
    with Builder({task.key: task}, tmp_path) as builder:
        good = builder.finish(builder.start(task.key, task.choices[0], 1))
        assert not isinstance(good, Failure)
        bad = builder.finish(builder.start(task.key, replace(task.choices[0], schedule=None), 2))  # type: ignore[arg-type]
        assert isinstance(bad, Failure)
        assert bad.kind == "build"
        builder._pool.submit(_die)  # type: ignore[union-attr]
        crashed = builder.finish(builder.start(task.key, task.choices[0], 3))
        assert isinstance(crashed, Failure)
        assert crashed.kind == "crash"
        assert not isinstance(builder.finish(builder.start(task.key, task.choices[0], 4)), Failure), "and goes on"
    runner = Runner(get_device("local"), (good, task.inputs))
    other = replace(
        task, layer=replace(task.layer, fused_op=replace(task.layer.fused_op, weight=task.layer.fused_op.weight + 1))
    )
    wrong = runner.measure(other, good)
    assert isinstance(wrong, Failure)
    assert wrong.kind == "wrong result"
    broken = replace(good, path=tmp_path / "nothing.so")
    assert isinstance(runner.measure(task, broken), Failure)
    with pytest.raises(PconvgenError, match="the device does not work any more"):
        Runner(get_device("local"), (broken, task.inputs)).measure(task, broken)


def test_builds_that_wait_outlive_one_that_crashes(tmp_path: Path) -> None:
    task = tasks_of(small(), HOST)[0][1]
    with Builder({task.key: task}, tmp_path) as builder:
        builder.finish(builder.start(task.key, task.choices[0], 1))
        dying = builder._pool.submit(_die)  # type: ignore[union-attr]
        waiting = [builder.start(task.key, task.choices[0], number) for number in (2, 3, 4)]
        kinds = [type(builder.finish(replace(waiting[0], library=dying))), *(type(builder.finish(w)) for w in waiting)]
        assert kinds == [Failure, Model, Model, Model]


def test_builds_that_never_work_are_an_error(tmp_path: Path) -> None:
    task = tasks_of(small(), HOST)[0][1]
    with Builder({task.key: task}, tmp_path) as builder:
        for number in range(3):
            build = builder.start(task.key, task.choices[0], number)
            dying = replace(build, library=builder._pool.submit(_die))  # type: ignore[union-attr]
            if number < 2:
                assert isinstance(builder.finish(dying), Failure)
            else:
                with pytest.raises(PconvgenError, match="ends by itself"):
                    builder.finish(dying)


def test_a_device_that_vanishes_ends_tuning_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls, measure = tmp_path / "records.jsonl", [0], LocalDevice.measure

    def vanishing(self: LocalDevice, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > 4:
            raise PconvgenError("no route to the device")
        return measure(self, *args, **options)

    monkeypatch.setattr(LocalDevice, "measure", vanishing)
    with pytest.raises(PconvgenError, match=r"does not work any more.*no route.*goes on where it ended"):
        tune(small(), HOST, get_device("local"), path, TuningBudget(trials=20))
    found = list(read_records(path))
    assert 1 <= len(found) <= 4
    assert all(record.failure is None for record in found), "what the device did is no trial's failure"


def test_interrupting_keeps_everything(tmp_path: Path) -> None:
    model, records = tmp_path / "model.pt2", tmp_path / "records.jsonl"
    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 3, 20, 20),)), model)
    command = [sys.executable, "-m", "pconvgen", "tune", str(model), "--records", str(records), "--minutes", "5"]
    # A group of its own, which gets the signal as from a terminal.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_interrupts,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (records.exists() and records.read_text().count("\n") >= 5):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; run the command again" in out
    assert "with the best found" in " ".join(out.split())
    assert "Traceback" not in out + err
    assert len(list(read_records(records))) >= 5
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.1)


def test_records_of_others_help_to_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pconvgen.tuning.session.records_of", lambda _: [])  # those that come with pconvgen
    imported, path = small(), tmp_path / "records.jsonl"
    tune(imported, HOST, get_device("local"), path, TuningBudget(trials=14))
    others = [replace(record, device={**record.device, "class": "local: another"}) for record in read_records(path)]
    path.write_text("".join(2 * record.to_line() for record in others))
    tuned = tune(imported, HOST, get_device("local"), path, TuningBudget(trials=1))
    assert tuned.tuner.prior == 2 * len(others) > 0
    assert sum(len(progress.costs) for progress in tuned.tuner.progress.values()) == 1, (
        "they are not taken for measured"
    )


def _die() -> None:
    import os

    os.abort()


def test_nothing_that_works_is_an_error_that_counts_the_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(self: Runner, task: Task, model: Any) -> Failure:
        return Failure("wrong result", "as always")

    monkeypatch.setattr(Runner, "measure", measure)
    with pytest.raises(PconvgenError, match=r"no trial worked.*3 x wrong result"):
        tune(small(), HOST, get_device("local"), tmp_path / "records.jsonl", TuningBudget(trials=3))
    assert [record.failure.kind for record in read_records(tmp_path / "records.jsonl") if record.failure] == [
        "wrong result"
    ] * 3
    with pytest.raises(PconvgenError, match=r"\(found 2 x wrong result\)"):
        tune(small(), HOST, get_device("local"), tmp_path / "records.jsonl", TuningBudget(trials=2))


def test_the_command_line(tmp_path: Path, invoke: Invoke) -> None:
    model, records = tmp_path / "model.pt2", tmp_path / "records.jsonl"
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 4))
    torch.export.save(torch.export.export(layers.eval(), (torch.zeros(1, 3, 8, 8),)), model)

    code, out, err = invoke("tune", model, "--trials", 4, "--records", records)
    assert code == 0, err
    assert "4 trials" in out
    assert "with the best found" in " ".join(out.split())
    assert "the whole network: " in out
    (network,) = [record for record in read_all(records) if isinstance(record, NetworkRecord)]
    assert 0 < network.layers < 100 * network.cost, "in the same unit; on a busy machine they differ"
    code, out, _ = invoke("records", "stats", records)
    assert (code, " 4 " in out) == (0, True), out
    assert invoke("records", "best", records)[1].count("local: ") == 3
    assert invoke("records", "export", records, "-o", tmp_path / "best.jsonl")[0] == 0
    verified = ("--verify", "-o", tmp_path / "m.so")
    code, out, err = invoke("compile", model, "--records", tmp_path / "best.jsonl", *verified)
    assert code == 0, err
    assert "measured: " in out
    assert invoke("tune", model, "--trials", 0)[0] == 2
    code, _, err = invoke("compile", model, "--records", model, "-o", tmp_path / "m.so")
    assert code == 1
    assert "no file of records" in err
    assert "Traceback" not in err


def test_compiling_measures_what_predictions_do_not_tell(tmp_path: Path, invoke: Invoke) -> None:
    model, records, out = tmp_path / "model.pt2", tmp_path / "records.jsonl", tmp_path / "m.so"
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    sparsify(layers, "simd_block", 0.8, ("2",))
    torch.export.save(torch.export.export(layers, (torch.zeros(1, 3, 16, 16),)), model)
    words = ("compile", model, "-o", out, "--records", records, "--measure")
    code, printed, err = invoke(*words, "--verify")
    assert code == 0, err
    assert "measured: " in printed
    assert "with the best found" in " ".join(printed.split())
    found = list(read_records(records))
    by_layer: dict[str, set[str]] = {}
    for record in found:
        by_layer.setdefault(record.task, set()).add(record.trial["structure"])
    assert any("dense" in structures and len(structures) > 1 for structures in by_layer.values())
    code, printed, _ = invoke(*words)
    assert (code, "0 trials" in printed) == (0, True), "what was measured is kept"
    assert len(list(read_records(records))) == len(found)
    assert invoke("compile", model, "--measure", "--dtype", "float16", "-o", out)[0] == 2
    assert invoke("compile", model, "--device", "local", "-o", out)[0] == 2
    code, _, err = invoke("compile", model, "--target", "cortex-a76", "--measure", "-o", out)
    assert (code, "no clock" in err) == (2, True)


@pytest.mark.cross
@pytest.mark.parametrize("unit", [CYCLES, INSTRUCTIONS])
def test_static_costs_of_arm(tmp_path: Path, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = get_device("emulated")
    if device.available():
        pytest.skip(f"ARM code cannot be run: {device.available()}")
    if unit == INSTRUCTIONS:
        monkeypatch.setattr(static_cycles, "version", lambda: None)
    elif static_cycles.version() is None:
        pytest.skip("llvm-mca is not installed")
    target, path, imported = get_target("cortex-a76"), tmp_path / "records.jsonl", small()
    tune(imported, target, device, path, TuningBudget(trials=8))
    records = list(read_records(path))
    assert {record.unit for record in records} == {unit}
    assert all(record.cost is not None for record in records)
    compiled = pconvgen.compile(imported, "cortex-a76", records=path)
    assert any(f"M {unit}" in decision.reason for decision in compiled.decisions)
    assert relative_error(compiled) < 1e-5
