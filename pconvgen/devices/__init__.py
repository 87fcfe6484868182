"""Devices: where compiled models run and are measured."""

from __future__ import annotations

import difflib

from pconvgen.devices.device import BenchResult, Device, Model
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.devices.local import LocalDevice
from pconvgen.devices.phone import SCHEME, parse_serial
from pconvgen.devices.rpc import parse_address
from pconvgen.errors import UsageError

__all__ = ["DEVICES", "BenchResult", "Device", "Model", "get_device"]

DEVICES: dict[str, Device] = {"local": LocalDevice(), "emulated": EmulatedDevice()}


def get_device(name: str) -> Device:
    """The device of that name, or with that address.

    Raises
    ------
    UsageError: there is none.
    """
    if name in DEVICES:
        return DEVICES[name]
    if name.startswith(SCHEME):
        return parse_serial(name)
    if "://" in name:
        return parse_address(name)
    nearest = difflib.get_close_matches(name.lower(), list(DEVICES), n=1, cutoff=0.5)
    raise UsageError(
        "unknown device",
        found=name,
        expected=f"one of {', '.join(DEVICES)}",
        remedy=f"did you mean {nearest[0]}?" if nearest else None,
    )
