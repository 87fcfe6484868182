"""Measurements as lines of JSON: of one schedule of one layer, and of a whole network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, ClassVar

from pconvgen.devices.units import UNITS
from pconvgen.errors import PconvgenError
from pconvgen.schedules.cores import CORES

VERSION = 1

FAILURES = ("build", "link", "upload", "time-out", "crash", "wrong result")
"""Why a trial has no figures."""


@dataclass(frozen=True)
class Failure:
    """Why a trial has no figures.

    Attributes
    ----------
    kind: one of FAILURES.
    text: what was reported.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Measurement:
    """What all records say. All parts are plain JSON values.

    Attributes
    ----------
    model: the file of the model that was tuned.
    target: what code was generated for: "name", "isa" (see `isa_of`), "triple", "cpu", "features".
    device: what is known of where it ran; "class" says which devices it speaks for.
    threads: how many it could use.
    versions: of pconvgen and TVM.
    unit: one of UNITS.
    repeats: of one call, in that unit; empty where it failed.
    time: when, in UTC as ISO 8601.
    """

    KIND: ClassVar[str]

    model: str
    target: Mapping[str, Any]
    device: Mapping[str, Any]
    threads: int
    versions: Mapping[str, str]
    unit: str
    repeats: tuple[float, ...]
    time: str

    @property
    def device_class(self) -> str:
        """The devices that it speaks for, with the number of threads."""
        return device_class(self.device["class"], self.threads)

    @property
    def where(self) -> tuple[str, str]:
        """(target, device class): records are compared, and used, within these only."""
        return target_key(self.target), self.device_class

    def to_line(self) -> str:
        """One line of JSON, with its end."""
        data = {"format": self.KIND, "version": VERSION, **asdict(self)}
        return json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"


@dataclass(frozen=True)
class Record(Measurement):
    """One trial.

    Attributes
    ----------
    workload: the layer's shapes, epilogue and formats, a ConvWorkload.
    places: the layouts of its tensors; None for a product of matrices.
    weight: statistics of the weight's zeros, see `weight_statistics`.
    trial: how it was computed: "structure", "params", "max_group", "template", and the template's schedule.
    predicted_cycles: what the analytic model said of it.
    failure: why it failed, None where it did not.
    """

    KIND = "pconvgen record"

    workload: Mapping[str, Any]
    places: Mapping[str, Any] | None
    weight: Mapping[str, Any]
    trial: Mapping[str, Any]
    predicted_cycles: float
    failure: Failure | None

    @property
    def cost(self) -> float | None:
        """The median of the repeats; None where the trial failed."""
        return median(self.repeats) if self.repeats else None

    @property
    def task(self) -> str:
        """What was to be computed, whatever the schedule: equal for layers that share their records."""
        return task_key(self.workload, self.places, self.weight)


@dataclass(frozen=True)
class NetworkRecord(Measurement):
    """One measurement of a whole network whose layers were all measured before.

    Attributes
    ----------
    layers: what its layers take alone, added up, in `unit`.
    """

    KIND = "pconvgen network record"

    layers: float

    @property
    def cost(self) -> float:
        """The median of the repeats."""
        return median(self.repeats)


def from_line(line: str) -> Record | NetworkRecord:
    """The inverse of `to_line`.

    Raises
    ------
    ValueError: the line is no record.
    NewerRecordError: it was written by a version of pconvgen that knows more.
    """
    data = json.loads(line)
    kind = data.pop("format", None) if isinstance(data, dict) else None
    if kind not in (Record.KIND, NetworkRecord.KIND):
        raise ValueError("no record")
    version = data.pop("version", None)
    if not isinstance(version, int):
        raise ValueError("a record without a version")
    if version > VERSION:
        raise NewerRecordError(version)
    try:
        repeats = tuple(float(value) for value in data.pop("repeats"))
        if kind == NetworkRecord.KIND:
            network = NetworkRecord(**data, repeats=repeats)
        else:
            failure = data.pop("failure")
            record = Record(**data, repeats=repeats, failure=None if failure is None else Failure(**failure))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record with other fields: {error}") from error
    if kind == NetworkRecord.KIND:
        if not repeats or not network.layers > 0 or network.unit not in UNITS:
            raise ValueError("a record of a network without figures")
        return network
    if record.unit not in UNITS or bool(record.repeats) == (record.failure is not None):
        raise ValueError("a record that has neither figures nor a failure, or both")
    return record


class NewerRecordError(Exception):
    """A record of a later version of the format."""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version}")
        self.version = version


def newer(path: object, version: int) -> PconvgenError:
    """The error for a file whose records this version cannot read."""
    return PconvgenError(
        "records of a newer pconvgen",
        file=path,
        found=f"version {version}",
        expected=f"at most {VERSION}",
        remedy="update pconvgen, or name another file",
    )


def task_key(workload: Mapping[str, Any], places: Mapping[str, Any] | None, weight: Mapping[str, Any]) -> str:
    """A short name for what is to be computed. Of the weight it has the structure and two digits of the density."""
    parts = [workload, places, weight["structure"], f"{weight['nonzeros'] / weight['size']:.2g}"]
    return hashlib.sha1(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def device_class(name: str, threads: int) -> str:
    """Where records are compared: devices of one name, see `device_name`, with the same number of threads."""
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def target_key(target: Mapping[str, Any]) -> str:
    """What must be equal for a library to be the same."""
    return " ".join([target["triple"], target["cpu"], isa_of(target), *target["features"]])


def isa_of(target: Mapping[str, Any]) -> str:
    """The instruction set of a record's target, in whose place older records name a core."""
    name: str = target["isa"]
    return CORES[name].isa.name if name in CORES else name
