"""What `pconvgen doctor --device` finds."""

from __future__ import annotations

import dataclasses
import socket

import pytest
from servers import Server

from pconvgen.devices.rpc import RpcDevice
from pconvgen.targets.presets import get_target
from pconvgen.tuning.device_check import device_checks

pytestmark = pytest.mark.host


def test_a_device_that_works(server: Server) -> None:
    found = {check.name: check for check in device_checks(server.device(), get_target("host"))}
    assert {"device", "runtime", "pages", "cores of the device", "memory of the device", "kernel"} <= found.keys()
    assert {check.status for name, check in found.items() if name not in ("governor", "heat")} == {"ok"}
    assert "for host: right" in found["kernel"].detail


def test_each_failure_says_what_to_do(server: Server) -> None:
    (wrong,) = device_checks(server.device("you"))
    assert (wrong.status, "another key" in wrong.detail) == ("failure", True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (absent,) = device_checks(RpcDevice("127.0.0.1", probe.getsockname()[1], "me"))
    assert (absent.status, "nobody listens there" in absent.detail) == ("failure", True)
    kernel = device_checks(server.device(), get_target("cortex-a76"))[-1]
    assert (kernel.name, kernel.status) == ("kernel", "failure")
    assert "another processor" in kernel.detail


def test_conditions_that_spoil_times(server: Server) -> None:
    told: dict[str, object] = {"celsius": 71.0, "governor": "schedutil", "free kib": 1e5, "page bytes": 65536}

    class Odd(RpcDevice):
        def facts(self) -> dict[str, object]:
            return {**super().facts(), **told}

    device = server.device()
    odd = Odd(**{field.name: getattr(device, field.name) for field in dataclasses.fields(device)})
    found = {check.name: check.status for check in device_checks(odd, get_target("host"))}
    assert found["heat"] == found["governor"] == found["memory of the device"] == "warning"
    assert found["pages"] == "failure"
    told |= {"celsius": 35.0, "governor": "performance", "free kib": 8e6, "page bytes": 16384}
    told |= {"cores": [0, 1, 2], "max mhz": [1800.0, 1800.0, 2800.0]}
    found = {check.name: (check.status, check.detail) for check in device_checks(odd, get_target("host"))}
    assert found["heat"] == ("ok", "35 degrees Celsius")
    assert found["governor"] == ("ok", "performance")
    assert found["pages"] == ("ok", "16384 bytes")
    assert found["cores of the device"] == ("ok", "3: 1 at 2800 MHz, 2 at 1800 MHz")
    told["celsius"] = -1.0
    found = {check.name: (check.status, check.detail) for check in device_checks(odd, get_target("host"))}
    assert found["heat"] == ("warning", "no thermal zone that can be read")
