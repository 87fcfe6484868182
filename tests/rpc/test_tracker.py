"""A tracker and the servers that it hands out."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from servers import serving

import pconvgen
from pconvgen.devices import Model, bundle, get_device
from pconvgen.devices.tracker import Servers, servers
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.tuning.device_check import device_checks

pytestmark = pytest.mark.host


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tracking(port: int) -> Iterator[str]:
    """The address of a tracker, started as users start it."""
    command = [sys.executable, "-m", "pconvgen", "rpc", "tracker", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"tracker on 127.0.0.1:{port}" in line, line
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def wait_for(address: str, expected: int, seconds: float = 20) -> Servers:
    """What the tracker tells of the key "farm" once so many servers are free."""
    end = time.monotonic() + seconds
    while True:
        found = [entry for entry in servers(address) if entry.key == "farm"]
        if found and found[0].free == expected:
            return found[0]
        assert time.monotonic() < end, found
        time.sleep(0.2)


def test_devices_are_handed_out_and_come_back(
    host_bundle: Path, tmp_path: Path, model: Model, compiled: pconvgen.CompiledModel
) -> None:
    inputs = compiled.manifest.random_inputs(0)
    expected = get_device("local").run(model, inputs)["output"]
    with ExitStack() as stack:
        address = stack.enter_context(tracking(free_port()))
        for number in range(3):
            folder = tmp_path / str(number)
            stack.enter_context(serving([host_bundle / bundle.START], folder, "--tracker", address, key="farm"))
        assert len(wait_for(address, 3).addresses) == 3
        device = get_device(f"rpc+tracker://{address}/farm")
        with ThreadPoolExecutor(6) as pool:
            for outputs in pool.map(lambda _: device.run(model, inputs), range(12)):
                np.testing.assert_array_equal(outputs["output"], expected)
        assert wait_for(address, 3).waiting == 0
        (step, ask), *_ = device.steps()
        assert (step, ask()) == ("tracker", "answers; registered: farm: 3, 3 free")
    (check,) = device_checks(device)
    assert (check.name, check.status, check.remedy) == ("tracker", "failure", "start one: pconvgen rpc tracker")


def test_a_tracker_that_is_restarted(host_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        with tracking(port) as address:
            command = [host_bundle / bundle.START]
            running = stack.enter_context(serving(command, tmp_path / "s", "--tracker", address, key="farm"))
            wait_for(address, 1)
        device = get_device(f"rpc+tracker://{address}/farm")
        assert "nobody listens there" in str(device.available())
        running.said("lost the tracker")
        with tracking(port) as address:
            wait_for(address, 1)
            assert device.available() is None


def test_a_server_without_its_tracker_takes_nobody(host_bundle: Path, tmp_path: Path) -> None:
    command = [host_bundle / bundle.START]
    with serving(command, tmp_path / "s", "--tracker", f"127.0.0.1:{free_port()}", key="farm") as running:
        for text in (b"client:", b"client:farm"):
            with socket.create_connection(("127.0.0.1", running.port)) as connection:
                connection.sendall(struct.pack("<ii", 0xFF271, len(text)) + text)
                assert struct.unpack("<i", connection.recv(4)) == (0xFF271 + 2,), "refused"


def test_what_is_no_tracker() -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        servers("here")
    with pytest.raises(PconvgenError, match="pconvgen rpc tracker"):
        servers(f"127.0.0.1:{free_port()}")
