"""The learned model of latency, on records whose times follow a rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pconvgen.devices.units import INSTRUCTIONS
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.latency.evaluate import evaluate
from pconvgen.latency.model import LEAST, LatencyModel, fit, most
from pconvgen.latency.ranker import features_of
from pconvgen.records.describe import describe_target
from pconvgen.records.record import Failure, Record
from pconvgen.targets.presets import get_target
from tests.unit.test_records import NETWORK, RECORD


def records(count: int = 400, seed: int = 0) -> list[Record]:
    """Layers of several sizes; the analytic model is wrong by a factor that depends on layer and schedule."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        channels, size = int(rng.choice([32, 64, 96, 128, 256])), int(rng.choice([7, 14, 28, 56]))
        lanes, vectors = int(rng.choice([8, 16])), int(rng.integers(1, 8))
        workload = {
            "batch": 1, "in_channels": channels, "height": size, "width": size, "out_channels": channels,
            "kernel": [3, 3], "stride": [1, 1], "groups": 1, "epilogue": {"residual": False, "activation": None},
            "precision": {"activations": "float32", "weights": "float32", "arithmetic": "float32"},
        }  # fmt: skip
        weights = channels * channels * 9
        weight = {**RECORD.weight, "size": weights, "nonzeros": weights // 4}
        cycles = weights / 4 * size * size / lanes
        factor = (1.3 if lanes == 16 else 1.0) * (1 + 0.1 * (vectors - 4) ** 2) * (1 + 7 / size)
        seconds = cycles * factor / 3e9 * float(rng.normal(1, 0.01))
        trial = {**RECORD.trial, "lanes": lanes, "vectors": vectors}
        found.append(
            replace(
                RECORD,
                model=f"net{number % 3}",
                workload=workload,
                weight=weight,
                trial=trial,
                predicted_cycles=cycles,
                repeats=(seconds,),
                target=describe_target(get_target("host")),
            )
        )
    return found


def test_layers_that_were_held_out_are_predicted() -> None:
    found = evaluate(records())
    assert found.error < 0.08
    assert found.rank_correlation > 0.9
    assert 0.5 < found.inside.mean() <= 1


def test_networks_take_longer_than_their_layers_alone(tmp_path: Path) -> None:
    known = records(100)
    here = replace(NETWORK, target=known[0].target, layers=1e-2, repeats=(1.1e-2,))
    networks = [here, replace(here, repeats=(1.3e-2,)), replace(here, repeats=(1.2e-2,)), replace(NETWORK, layers=1.0)]
    model = fit(known, networks)
    assert model.together == pytest.approx(1.2), "the median of those of this target and device"
    model.save(tmp_path / "m.json")
    assert LatencyModel.load(tmp_path / "m.json").together == model.together
    assert fit(known).together == 1.0


def test_a_model_survives_and_says_what_it_is_of(tmp_path: Path) -> None:
    known = records()
    model = fit(known)
    model.save(tmp_path / "m.json")
    again = LatencyModel.load(tmp_path / "m.json")
    rows = [features_of(record) for record in known[:20]]
    cycles = [record.predicted_cycles for record in known[:20]]
    assert again.predict(rows, cycles) == model.predict(rows, cycles)
    for time, record in zip(again.predict(rows, cycles), known[:20], strict=True):
        assert time.low <= time.middle <= time.high
        assert time.middle == pytest.approx(record.repeats[0], rel=0.25)
    assert (again.records, again.device_class) == (len(known), known[0].device_class)
    again.check(get_target("host"))
    with pytest.raises(UsageError, match="another target"):
        again.check(get_target("cortex-a76"))


def test_what_has_no_time_teaches_nothing() -> None:
    known = records(LEAST)
    failed = replace(known[0], repeats=(), failure=Failure("crash", ""))
    counted = [replace(record, unit=INSTRUCTIONS) for record in records(200)]
    elsewhere = [replace(record, device={"class": "local: another"}) for record in records(LEAST - 10)]
    assert most([*known, failed, *counted, *elsewhere]) == known
    with pytest.raises(PconvgenError, match="too few records"):
        most([*known[1:], failed, *counted])


@pytest.mark.parametrize("text", ["", "nothing", "{}", json.dumps({"format": "pconvgen latency model", "version": 99})])
def test_other_files_are_no_models(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(PconvgenError, match="no latency model"):
        LatencyModel.load(path)
    with pytest.raises(PconvgenError, match="cannot be read"):
        LatencyModel.load(tmp_path / "missing")


def test_a_damaged_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    fit(records(100)).save(path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "middle": data["middle"][: len(data["middle"]) // 8 * 4]}))
    with pytest.raises(PconvgenError, match="no latency model"):
        LatencyModel.load(path)
