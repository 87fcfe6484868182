"""Where records of the benchmark lie, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from benchmarks.latency.subjects import NETWORKS, Drawn, Pruned
from pconvgen.latency.model import most
from pconvgen.records.record import NetworkRecord, Record
from pconvgen.records.store import read_all, read_records
from pconvgen.schedules.avx2 import AVX2
from pconvgen.schedules.cores import core_of_cpu
from pconvgen.targets.presets import get_target
from pconvgen.values.target import Target

FOLDER = Path("out") / "latency"
"""A folder for each instruction set with a file for each network, which is gone on from, and for each sweep."""


def target_of(name: str) -> Target:
    """The target of that name; "avx2" for this machine's as it is where a hypervisor masks AVX-512."""
    if name != AVX2.name:
        return get_target(name)
    host = get_target("host")
    core = replace(core_of_cpu(AVX2, host.cpu), l1_kib=host.core.l1_kib, l2_kib=host.core.l2_kib)
    return replace(host, core=core, features=("-avx512f",))


def path_of(target: Target, name: str) -> Path:
    """The file of a network or a sweep."""
    return FOLDER / target.core.isa.name / f"{name}.jsonl"


def read(target: Target, networks: Iterable[Pruned | Drawn]) -> list[Record]:
    """All records of some networks."""
    paths = [path_of(target, network.name) for network in networks]
    return [record for path in paths if path.exists() for record in read_records(path)]


def comparable(target: Target) -> list[Record]:
    """Records of all networks, of the device that has most of them."""
    return most(read(target, NETWORKS))


def whole_networks(target: Target, name: str = "*") -> list[NetworkRecord]:
    """Records of networks that were measured as a whole."""
    paths = sorted((FOLDER / target.core.isa.name).glob(f"{name}.jsonl"))
    return [record for path in paths for record in read_all(path) if isinstance(record, NetworkRecord)]


def sweeps(target: Target) -> dict[str, list[Record]]:
    """What `benchmarks.tuning` has measured of every schedule of some layers, failures left out."""
    return {
        path.stem.removeprefix("sweep-"): [record for record in read_records(path) if record.cost is not None]
        for path in sorted((FOLDER / target.core.isa.name).glob("sweep-*.jsonl"))
    }
