"""Whether a device can be reached, runs what is compiled for it, and measures as it should."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pconvgen.devices.device import Device
from pconvgen.devices.doctor import MEMORY_GIB, Check
from pconvgen.errors import PconvgenError
from pconvgen.targets.presets import get_target
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target

TARGETS = {"aarch64": "android-arm64", "armv7l": "android-armv7a"}
"""What runs on any device of a processor family."""
HOT = 60.0
"""Degrees Celsius above which phones lower their clocks."""
LARGE_PAGES = 16384
"""The largest pages that libraries are linked for."""


def device_checks(device: Device, target: Target | None = None) -> list[Check]:
    """Goes the way of a measurement, step by step, as far as it gets. Nothing is raised."""
    found = []
    for name, step in device.steps():
        try:
            found.append(Check(name, "ok", step()))
        except PconvgenError as error:
            return [*found, Check(name, "failure", str(error), error.remedy)]
    reason = device.available()
    if reason is not None:
        return [*found, Check("device", "failure", reason, None)]
    facts = device.facts()
    about = (facts["machine"], facts.get("cpu"), facts.get("system"))
    found.append(Check("device", "ok", f"{device.name}: {', '.join(str(part) for part in about if part)}"))
    found += _conditions(facts)
    if device.counts:
        found.append(Check("clock", "warning", f"none: {device.unit} are measured", "measure times on a real device"))
    try:
        wanted = target or get_target("host" if device.name == "local" else TARGETS.get(str(facts["machine"]), "host"))
        found.append(_kernel(device, wanted))
    except PconvgenError as error:
        found.append(Check("kernel", "failure", str(error), error.remedy))
    return found


def _conditions(facts: Mapping[str, Any]) -> list[Check]:
    """What a device tells of itself, as far as it does."""
    found = []
    if "runtime" in facts:
        found.append(
            Check("runtime", "ok", f"{facts['runtime']}, {facts['c library']}, server {facts['server kib']} KiB")
        )
    if "page bytes" in facts:
        size = int(facts["page bytes"])
        fits = size <= LARGE_PAGES
        remedy = None if fits else f"libraries are linked for pages of up to {LARGE_PAGES} bytes"
        found.append(Check("pages", "ok" if fits else "failure", f"{size} bytes", remedy))
    if isinstance(facts.get("cores"), list):
        clocks = sorted({round(mhz) for mhz in facts["max mhz"] if mhz > 0}, reverse=True)
        kinds = ", ".join(f"{sum(round(m) == mhz for m in facts['max mhz'])} at {mhz} MHz" for mhz in clocks)
        found.append(Check("cores of the device", "ok", f"{len(facts['cores'])}{f': {kinds}' if kinds else ''}"))
    if facts.get("governor"):
        steady = facts["governor"] == "performance"
        remedy = None if steady else "times vary more; keep the device awake, or set it to performance as root"
        found.append(Check("governor", "ok" if steady else "warning", facts["governor"], remedy))
    if facts.get("celsius", -1) > 0:
        hot = facts["celsius"] > HOT
        remedy = "let it cool down; tune --cool-down waits between trials" if hot else None
        found.append(Check("heat", "warning" if hot else "ok", f"{facts['celsius']:.0f} degrees Celsius", remedy))
    elif "celsius" in facts:
        remedy = "if it gets warm, tune with --cool-down: nothing here would tell"
        found.append(Check("heat", "warning", "no thermal zone that can be read", remedy))
    if facts.get("free kib", -1) > 0:
        gib = facts["free kib"] / 2**20
        few = gib < MEMORY_GIB / 8
        remedy = "close other programs there" if few else None
        found.append(Check("memory of the device", "warning" if few else "ok", f"{gib:.1f} GiB free", remedy))
    return found


def _kernel(device: Device, target: Target) -> Check:
    """Compiles, sends, runs and compares a small layer. Raises PconvgenError when that fails."""
    # They import TVM, which may be what is missing.
    from pconvgen.tuning.runner import TOLERANCE
    from pconvgen.tuning.session import reference

    task = reference(target)
    with tempfile.TemporaryDirectory(prefix="pconvgen-doctor-") as name:
        model = task.library(task.choices[0], Path(name) / "kernel.so")
        started = time.monotonic()
        outputs = device.run(model, task.inputs)
        seconds = time.monotonic() - started
    error = task.error(outputs["output"])
    if not error <= TOLERANCE[DType.FLOAT32]:
        return Check(
            "kernel", "failure", f"wrong result, relative error {error:.1e}", "report this with the table above"
        )
    return Check("kernel", "ok", f"for {target.name}: right in TVM's virtual machine, {seconds:.1f} s with upload")
