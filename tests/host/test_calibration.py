"""A device that nobody has measured: what it takes is learned in a minute, and every command knows it from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Invoke

from pconvgen.calibration import session
from pconvgen.calibration.layers import LAYERS, calibration_tasks
from pconvgen.calibration.session import calibrate
from pconvgen.devices import Device, get_device
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.latency.model import LatencyModel
from pconvgen.planning.experience import experience
from pconvgen.records.describe import describe_choice, describe_target
from pconvgen.records.facts import device_facts
from pconvgen.records.kept import kept_models
from pconvgen.records.record import Record
from pconvgen.records.store import RecordFile, read_records
from pconvgen.targets.presets import get_target
from pconvgen.tuning.collect import tasks_of
from pconvgen.tuning.sampler import Sampler
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import TuningBudget
from tests.networks import imported
from tests.unit.test_records import RECORD

pytestmark = pytest.mark.host

HOST = get_target("host")
SLOW = {"unstructured": 2.5, "dense": 1.5}
"""How many times longer than predicted kernels take on the machine of these tests; a nanosecond per cycle otherwise."""


TASKS = cache(calibration_tasks)


def seconds(choice: Any) -> float:
    """What a choice takes there."""
    return 1e-9 * choice.cycles * SLOW.get(choice.candidate.structure, 1.0)


def record(task: Task, choice: Any, device: Device) -> Record:
    described = task.layer.described(task.places)
    about: dict[str, Any] = dict(zip(("workload", "places", "weight"), described, strict=True))
    about |= {"trial": describe_choice(choice), "predicted_cycles": choice.cycles, "repeats": (seconds(choice),) * 3}
    return replace(RECORD, **about, device=device_facts(device, None), target=describe_target(task.target))


class Measured:
    """Stands in for a measuring session, on a machine whose times are known."""

    def __init__(self) -> None:
        self.kernels = 80
        self.interrupted = False

    def __call__(
        self, tasks: Sequence[Task], model: str, target: Any, device: Device, records: Path, budget: TuningBudget,
        **options: Any,
    ) -> tuple[Any, bool]:  # fmt: skip
        assert (model, options["strategy"]) == ("calibration", Sampler)
        file = RecordFile(records)
        for number in range(self.kernels):
            task = tasks[number % len(tasks)]
            file.append(record(task, task.choices[number // len(tasks) % len(task.choices)], device))
        file.close()
        return None, self.interrupted


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    found = Measured()
    monkeypatch.setattr(session, "measure", found)
    # On no processor does what comes with pconvgen know the times.
    monkeypatch.setattr("pconvgen.planning.experience.latency_of", lambda *_: None)
    monkeypatch.setattr(session, "calibration_tasks", TASKS)
    return found


def test_the_layers_span_what_networks_have() -> None:
    tasks = TASKS(HOST)
    assert len(tasks) == LAYERS
    assert len({task.key for task in tasks}) == LAYERS
    assert [task.key for task in calibration_tasks(HOST)] == [task.key for task in tasks], "the same each time"
    for some in (tasks[:16], tasks):
        workloads = [task.workload for task in some]
        assert {w.kernel for w in workloads} == {(1, 1), (3, 3)}
        assert {w.stride for w in workloads} == {(1, 1), (2, 2)}
        assert any(w.groups == w.in_channels > 1 for w in workloads)
        assert any(w.is_product for w in workloads)
        held = {task.layer.described(task.places)[2]["structure"].split("(")[0] for task in some}
        assert {"dense", "simd_block", "pattern"} <= held
    assert {"unstructured", "block_punched"} <= held


def test_each_kind_of_layer_is_right(tmp_path: Path) -> None:
    device = get_device("local")
    for task in TASKS(HOST)[:8]:
        library = task.library(task.choices[0], tmp_path / "layer.so")
        assert task.error(device.run(library, task.inputs)["output"]) < 1e-5, task.name


def test_networks_have_times_then(measured: Measured, calibrations: Path) -> None:
    assert experience(HOST).model is None
    found = calibrate(HOST, get_device("local"), 5.0)
    assert found.path.parent == found.records.parent == calibrations
    known = experience(HOST)
    assert known.model is not None
    assert known.model.records == measured.kernels
    assert "times learned from 80 records" in known.timing
    errors = []
    for task in tasks_of(imported("resnet18", "simd_block"), HOST)[0]:
        for choice in task.choices[:: 1 + len(task.choices) // 3]:
            predicted = known.model.time(task.layer.described(task.places), choice)
            assert predicted.low <= predicted.middle <= predicted.high
            errors.append(abs(predicted.middle / seconds(choice) - 1))
    assert np.median(errors) < 0.12, "layers that it never saw"
    assert known.model.error is not None
    assert known.model.error < 0.12


def test_it_goes_on_where_it_ended(measured: Measured) -> None:
    measured.kernels = 12
    first = calibrate(HOST, get_device("local"), 5.0)
    measured.kernels = 70
    second = calibrate(HOST, get_device("local"), 5.0)
    assert first.path == second.path
    assert len(list(read_records(second.records))) == 82
    assert LatencyModel.load(second.path).records == 82


def test_too_little_teaches_nothing(measured: Measured, calibrations: Path) -> None:
    measured.kernels = 3
    with pytest.raises(PconvgenError, match=r"too few records.*found 3.*measure longer"):
        calibrate(HOST, get_device("local"), 5.0)
    assert not list(calibrations.glob("*.json"))
    assert len(list(calibrations.glob("*.jsonl"))) == 1, "what was measured is kept"


def test_what_counts_has_no_times() -> None:
    with pytest.raises(UsageError, match="without a clock"):
        calibrate(get_target("cortex-a76"), get_device("emulated"), 5.0)


def test_a_device_of_another_target_is_found_again(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of devices that was calibrated last is what its libraries are for."""
    target, device = get_target("cortex-a76"), get_device("local")
    measured.kernels = 70
    calibrate(target, device, 5.0)
    (path,) = kept_models(target)
    known = experience(target)
    assert known.model is not None
    assert known.device_class == LatencyModel.load(path).device_class
    assert not kept_models(get_target("cortex-a53"))


def test_the_command_line(measured: Measured, invoke: Invoke, tmp_path: Path, models: Path) -> None:
    code, out, err = invoke("calibrate", "--seconds", "5", "-o", tmp_path / "m.json")
    assert code == 0, err
    assert "learned from 80 kernels of" in out
    assert LatencyModel.load(tmp_path / "m.json").records == 80
    code, out, err = invoke("explain", models / "small.pt2")
    assert (code, "times learned from 80 records" in out) == (0, True), err
    assert invoke("calibrate", "--seconds", "0")[0] == 2
    code, _, err = invoke("calibrate", "--target", "cortex-a53")
    assert (code, "without a clock" in err) == (2, True)


def test_the_first_use_calibrates(
    measured: Measured, invoke: Invoke, models: Path, calibrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = invoke("explain", models / "small.pt2")
    assert (code, err, "no times" in out, "pconvgen calibrate measures it" in out) == (0, "", True, True)
    monkeypatch.delenv("CI")
    code, out, err = invoke("explain", models / "small.pt2", "--no-calibrate")
    assert (code, err, "no times" in out) == (0, "", True)
    code, out, err = invoke("explain", models / "small.so")
    assert (code, err) == (0, ""), "a library was decided upon"
    code, out, err = invoke("explain", models / "small.pt2", "--target", "cortex-a76")
    assert (code, err) == (0, ""), "it is no matter of this machine"
    broken = calibrations.parent / "broken.pt2"
    broken.write_bytes(b"PK")
    for command in ("compile", "explain"):
        code, _, err = invoke(command, broken)
        assert (code, "nobody has measured" in err) == (1, False), "what is wrong is said at once"
    code, out, err = invoke("explain", models / "small.pt2")
    assert (code, "times learned from" in out) == (0, True), err
    assert "nobody has measured this processor yet: doing so" in err
    assert list(calibrations.glob("*.json"))
    code, out, err = invoke("explain", models / "small.pt2")
    assert (code, err, "times learned from" in out) == (0, "", True), "once"


def test_a_calibration_that_fails_stops_nothing(
    measured: Measured, invoke: Invoke, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI")
    measured.kernels = 2
    code, out, err = invoke("explain", models / "small.pt2")
    assert (code, "no times" in out, "times are not known: too few records" in err) == (0, True, True)


@pytest.mark.parametrize("kernels", [2, 80])
def test_an_interrupt_ends_the_command_and_keeps_what_there_is(
    kernels: int, measured: Measured, invoke: Invoke, models: Path, calibrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI")
    measured.kernels, measured.interrupted = kernels, True
    for command in (("explain", models / "small.pt2"), ("calibrate",)):
        code, _, err = invoke(*command)
        assert (code, "times are not known" in err) == (130, False), err
    assert len(list(read_records(next(calibrations.glob("*.jsonl"))))) == 2 * kernels
