"""Three emulated phones at a tracker, from the command line to tuned records."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import Server, serving
from test_tracker import free_port, tracking, wait_for
from torch import nn

import pconvgen
from pconvgen.devices import get_device
from pconvgen.devices.rpc import RpcDevice
from pconvgen.records.store import read_records
from pconvgen.sparsify import sparsify
from pconvgen.targets.presets import get_target
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import Progress, Proposal, Tuner, TuningBudget
from tests.networks import TOLERANCE, imported

pytestmark = pytest.mark.cross

DEVICES = 3
TARGET = "android-arm64"


@dataclass
class Farm:
    """Some servers at a tracker."""

    address: str
    servers: list[Server]

    @property
    def device(self) -> RpcDevice:
        """Whichever is free."""
        found = get_device(f"rpc+tracker://{self.address}/farm")
        assert isinstance(found, RpcDevice)
        return found


class Exhaustive(Tuner):
    """Tries everything, in order."""

    def _propose(self, count: int, building: Sequence[Progress]) -> list[Proposal]:
        return [Proposal(progress, *progress.untried.pop(0)) for progress in self.progress.values() if progress.untried]


@pytest.fixture
def farm() -> Iterator[Farm]:
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    with ExitStack() as stack:
        address = stack.enter_context(tracking(free_port()))
        command = [sys.executable, "-m", "pconvgen", "rpc", "server", "--emulated", "--port", "0"]
        servers = [
            stack.enter_context(serving(command, None, "--tracker", address, key="farm")) for _ in range(DEVICES)
        ]
        wait_for(address, DEVICES, seconds=60)
        yield Farm(address, servers)


def two_layers(channels: int = 16, size: int = 10) -> pconvgen.frontend.Imported:
    """One of 3x3 and one of 1x1, in blocks."""
    torch.manual_seed(0)
    layers = nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 1)
    model = nn.Sequential(*layers).eval()
    sparsify(model, "simd_block", 0.25)
    return pconvgen.load_model(model, example=(torch.zeros(1, channels, size, size),))


def test_a_network_is_right_and_its_instructions_are_counted(farm: Farm, tmp_path: Path) -> None:
    compiled = pconvgen.compile(imported("resnet18", "pattern"), TARGET)
    model = compiled.manifest.model(compiled.export(tmp_path / "resnet18.so"))
    inputs = compiled.manifest.random_inputs(0)
    expected = compiled.imported.reference(inputs)
    outputs, result = farm.device.measure(model, inputs)
    for name, values in expected.items():
        assert np.abs(outputs[name] - values).max() <= TOLERANCE * np.abs(values).max()
    assert farm.device.unit == "instructions"
    assert (result.median_ms, result.times_ms) == (None, ()), "emulation has no times"
    counted = get_device("emulated").bench(model, inputs).instructions
    assert result.instructions is not None
    assert counted is not None
    assert abs(result.instructions / counted - 1) < 0.02, "the same code, from another program"


def test_tuning_uses_all_of_them(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tuned = tune(two_layers(), get_target(TARGET), farm.device, path, TuningBudget(trials=12, seconds=120))
    records = list(read_records(path))
    assert len(records) == tuned.tuner.trials == 12
    assert all(record.failure is None for record in records)
    assert {record.unit for record in records} == {"instructions"}
    assert len({record.device["server"] for record in records}) == DEVICES
    assert len({record.device_class for record in records}) == 1
    wait_for(farm.address, DEVICES)


@pytest.mark.long
def test_two_minutes_of_tuning(farm: Farm, tmp_path: Path) -> None:
    path, seconds = tmp_path / "records.jsonl", 120
    started = time.monotonic()
    # By itself the tuner stops when nothing promises a gain, which is sooner.
    tuned = tune(
        two_layers(64, 28), get_target(TARGET), farm.device, path, TuningBudget(seconds=seconds), strategy=Exhaustive
    )
    took = time.monotonic() - started
    records = list(read_records(path))
    assert len(records) == tuned.tuner.trials
    assert all(record.failure is None for record in records)
    assert {record.task for record in records} == tuned.tuner.progress.keys()
    assert len(tuned.tuner.progress) == 2
    by_server = Counter(record.device["server"] for record in records)
    assert len(by_server) == DEVICES
    assert min(by_server.values()) > len(records) / (2 * DEVICES), "none is idle"
    assert seconds <= took < 1.25 * seconds
    print(f"{len(records)} trials in {took:.0f} s, by server {dict(by_server)}")
    wait_for(farm.address, DEVICES)


def test_a_device_that_is_lost_while_tuning(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"

    def lose(tuner: object, _: float) -> None:
        if farm.servers[0].process.poll() is None:
            os.kill(farm.servers[0].process.pid, signal.SIGKILL)

    tuned = tune(two_layers(), get_target(TARGET), farm.device, path, TuningBudget(trials=9, seconds=120), report=lose)
    records = list(read_records(path))
    assert len(records) == tuned.tuner.trials == 9
    assert all(record.failure is None for record in records), "the trial is not to blame"
