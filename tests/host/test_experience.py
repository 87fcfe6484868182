"""What was measured before decides, and tells times; of what nobody has measured nothing is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Invoke
from torch import nn

import pconvgen
from pconvgen.errors import PconvgenWarning, UsageError
from pconvgen.latency.model import LatencyModel, fit
from pconvgen.manifest import read_manifest
from pconvgen.planning.experience import experience
from pconvgen.records.describe import (
    describe_choice,
    describe_target,
)
from pconvgen.records.facts import device_facts
from pconvgen.records.record import Record
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from pconvgen.tuning.collect import tasks_of
from tests.networks import relative_error
from tests.unit.test_records import RECORD

pytestmark = pytest.mark.host

HOST = get_target("host")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
        nn.Conv2d(48, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    sparsify(model, "simd_block", 0.25, ("2", "4"))
    return model


EXAMPLE = (torch.zeros(1, 3, 24, 24),)


def records(slow: int = 0, device: str | None = None) -> list[Record]:
    """Of schedules of the network: a nanosecond per cycle, three with tiles of `slow` vectors."""
    from pconvgen.devices import get_device

    facts = device_facts(get_device("local"), None)
    facts = facts if device is None else {**facts, "class": device}
    found = []
    for task in tasks_of(pconvgen.load_model(network(), example=EXAMPLE), HOST)[0]:
        described = task.layer.described(task.places)
        about: dict[str, Any] = dict(zip(("workload", "places", "weight"), described, strict=True))
        for choice in task.choices[:: max(1, len(task.choices) // 40)]:
            trial = describe_choice(choice)
            seconds = 1e-9 * choice.cycles * (3 if trial.get("vectors") == slow else 1)
            about |= {"trial": trial, "predicted_cycles": choice.cycles, "repeats": (seconds,) * 3}
            found.append(replace(RECORD, **about, device=facts, target=describe_target(HOST)))
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "model.json"
    fit(records()).save(path)
    return path


def test_times_are_predicted_with_an_interval(learned: Path, tmp_path: Path) -> None:
    compiled = pconvgen.compile(network(), example=EXAMPLE, latency=learned)
    for decision in compiled.decisions:
        assert decision.predicted_ms is not None
        assert decision.interval_ms is not None
        assert decision.interval_ms[0] <= decision.predicted_ms <= decision.interval_ms[1]
        assert decision.predicted_ms == pytest.approx(1e-6 * (decision.predicted_cycles or 0), rel=0.2)
    assert "times learned from" in compiled.manifest.timing
    assert read_manifest(compiled.export(tmp_path / "m.so")) == compiled.manifest
    assert compiled.explain()["timing"] == compiled.manifest.timing


def test_the_learned_model_chooses(tmp_path: Path) -> None:
    usual = pconvgen.compile(network(), example=EXAMPLE, latency=_saved(records(), tmp_path / "usual.json"))
    slow = next(d.schedule["vectors"] for d in usual.decisions if d.schedule and d.name == "2")
    other = pconvgen.compile(network(), example=EXAMPLE, latency=_saved(records(slow), tmp_path / "other.json"))
    decision = next(d for d in other.decisions if d.name == "2")
    assert decision.schedule is not None
    assert decision.schedule["vectors"] != slow
    assert "learned: " in decision.reason
    assert relative_error(other) < 1e-5


def _saved(known: list[Record], path: Path) -> Path:
    fit(known).save(path)
    return path


def test_a_record_has_its_own_time(learned: Path, tmp_path: Path) -> None:
    task = next(t for t in tasks_of(pconvgen.load_model(network(), example=EXAMPLE), HOST)[0] if t.name == "2")
    mine = next(r for r in records() if r.task == task.key and r.trial != describe_choice(task.choices[0]))
    path = tmp_path / "r.jsonl"
    path.write_text(replace(mine, repeats=(2e-3, 1e-3, 3e-3)).to_line())
    compiled = pconvgen.compile(network(), example=EXAMPLE, latency=learned, records=path)
    found = {decision.name: decision for decision in compiled.decisions}
    assert "measured: 2.000 ms" in found["2"].reason
    assert found["2"].predicted_ms == pytest.approx(2.0)
    assert found["2"].interval_ms is not None
    assert found["2"].interval_ms[0] < 2.0 < found["2"].interval_ms[1]
    assert "measured" not in found["4"].reason


def test_of_what_nobody_measured_nothing_is_said(learned: Path) -> None:
    compiled = pconvgen.compile(network(), "cortex-a53", example=EXAMPLE)
    assert all(decision.predicted_ms is decision.interval_ms is None for decision in compiled.decisions)
    assert compiled.manifest.timing.startswith("no times: nothing was learned of cortex-a53")
    with pytest.raises(UsageError, match="another target"):
        experience(get_target("cortex-a53"), latency=learned)


def test_a_model_of_another_processor_is_refused(tmp_path: Path) -> None:
    path = _saved(records(device="local: another"), tmp_path / "other.json")
    with pytest.raises(UsageError, match=r"another device.*found local: another, 1 thread"):
        pconvgen.compile(network(), example=EXAMPLE, latency=path)


def test_intervals_hold_what_they_should() -> None:
    """Noise of 10 %: of layers that were left out, four in five lie inside."""
    rng = np.random.default_rng(0)
    noisy = [replace(r, repeats=(r.repeats[0] * float(rng.lognormal(0, 0.1)),)) for r in records()]
    tasks = sorted({record.task for record in noisy})
    model = fit([record for record in noisy if record.task != tasks[0]])
    held = [record for record in noisy if record.task == tasks[0]]
    from pconvgen.latency.ranker import features_of

    rows = [features_of(record) for record in held]
    times = model.predict(rows, [record.predicted_cycles for record in held])
    inside = [time.low <= (record.cost or 0) <= time.high for time, record in zip(times, held, strict=True)]
    assert 0.6 < np.mean(inside) <= 1.0


def test_models_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for text in ("", "[]", "{}", '{"format": "pconvgen latency model", "version": 1}', "\x00\x01"):
        path.write_text(text)
        with pytest.raises(pconvgen.errors.PconvgenError, match="no latency model"):
            LatencyModel.load(path)


def test_the_command_lines(learned: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(network(), EXAMPLE), model)
    monkeypatch.chdir(tmp_path)

    code, out, err = invoke("explain", model, "--latency", learned, "--json", "e.json")
    assert code == 0, err
    assert "times learned from" in out
    layers = json.loads((tmp_path / "e.json").read_text())["layers"]
    assert all(layer["interval_ms"][0] <= layer["predicted_ms"] <= layer["interval_ms"][1] for layer in layers)
    code, out, err = invoke("whatif", model, "--structure", "simd_block", "--density", "0.5", "--latency", learned)
    assert (code, "predicted ms" in out) == (0, True), err
    words = ["--structure", "simd_block", "--latency", learned, "--json", "c.json", "--plot", "c.png"]
    code, _, err = invoke("latency", "curves", model, *words)
    assert code == 0, err
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["unit"] == "seconds"
    assert [layer["name"] for layer in found["layers"]] == ["0", "2", "4", "8"]
    assert all(layer["costs"] == sorted(layer["costs"]) for layer in found["layers"])
    assert (tmp_path / "c.png").stat().st_size > 1000
    code, out, err = invoke("latency", "curves", model, "--structure", "pattern", "--target", "cortex-a53")
    assert (code, "cycles (estimate)" in out) == (0, True), err
    assert invoke("explain", model, "--latency", model)[0] == 1
    assert invoke("latency", "curves", model, "--structure", "pattern", "--lowest", "2")[0] == 2


def test_nothing_is_said_of_larger_batches_than_were_measured(learned: Path) -> None:
    compiled = pconvgen.compile(network(), example=(torch.zeros(4, 3, 24, 24),), latency=learned)
    assert all(decision.predicted_ms is None for decision in compiled.decisions)
    assert "batch 1 at most" in compiled.manifest.timing


def test_a_model_that_this_xgboost_cannot_read_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    path.write_text("{}")
    monkeypatch.setattr("pconvgen.planning.experience.latency_of", lambda *_: path)
    with pytest.warns(PconvgenWarning, match="no latency model"):
        assert experience(HOST).model is None
