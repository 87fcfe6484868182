"""What a record says about the device and the software that it was measured with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pconvgen.affinity import format_cores
from pconvgen.devices import Device

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def device_name(device: Device) -> str:
    """What a device has in common with those that its records speak for: the processor, and what is measured."""
    facts = device.facts()
    name = f"{facts['device']}: {facts.get('cpu') or facts['machine']}"
    return f"{name}, {device.unit}" if device.counts else name


def device_facts(device: Device, cores: Sequence[int] | None, evicted: int = 0) -> dict[str, Any]:
    """What is known of a device, with its class, the cores that are used, what sets its clock, and how many bytes went
    through its caches before each repeat."""
    facts: dict[str, Any] = {"class": device_name(device), **device.facts()}
    if evicted and not device.counts:
        facts["evicted"] = evicted
    if cores is not None:
        facts["core set"] = format_cores(cores)
    if device.name == "local":
        try:
            facts["governor"] = GOVERNOR.read_text().strip()
        except OSError:
            facts["governor"] = None
    return facts


def versions() -> dict[str, str]:
    """Of pconvgen and of TVM, which brings LLVM."""
    return {name: version(name) for name in ("pconvgen", "apache-tvm")}
