"""A whole network, measured with what tuning has found: what its layers take together is not what they take alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pconvgen.compiler import compile
from pconvgen.devices import Device
from pconvgen.devices.units import SECONDS
from pconvgen.frontend import Imported
from pconvgen.planning.experience import experience
from pconvgen.records.describe import describe_target
from pconvgen.records.facts import device_facts, versions
from pconvgen.records.record import NetworkRecord
from pconvgen.records.store import RecordFile
from pconvgen.values.target import Target

SECONDS_OF_NETWORK = 1.0


def measure_network(
    imported: Imported, target: Target, device: Device, records: Path, cores: Sequence[int] | None = None
) -> NetworkRecord | None:
    """Compiles a model with the records of its layers, measures it and appends that to the file.

    None where the device counts, and where not every layer has a time: two kernels have none together.

    Raises
    ------
    PconvgenError: the network cannot be compiled or fails on the device.
    """
    if device.counts:
        return None
    # Without a model that predicts what was not measured.
    compiled = compile(imported, target.name, planner=replace(experience(target, records), model=None))
    alone = [decision.predicted_ms for decision in compiled.decisions]
    known = [value for value in alone if value is not None]
    if len(known) < len(alone) or not known:
        return None
    with tempfile.TemporaryDirectory(prefix="pconvgen-tune-") as folder:
        model = compiled.manifest.model(compiled.export(Path(folder) / "model.so"))
        result = device.bench(model, compiled.manifest.random_inputs(0), cores=cores, seconds=SECONDS_OF_NETWORK)
    record = NetworkRecord(
        model=Path(imported.source).name,
        layers=sum(known) / 1e3,
        target=describe_target(target),
        device=device_facts(device, cores),
        threads=1,
        versions=versions(),
        unit=SECONDS,
        repeats=tuple(value / 1e3 for value in result.times_ms),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    file = RecordFile(records)
    try:
        file.append(record)
    finally:
        file.close()
    return record
