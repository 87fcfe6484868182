"""Files of records: nothing that was measured gets lost, and nothing else is taken for it."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from pconvgen.devices.units import CYCLES, INSTRUCTIONS, SECONDS
from pconvgen.errors import PconvgenError, PconvgenWarning
from pconvgen.records.record import VERSION, Failure, NetworkRecord, Record, from_line, task_key
from pconvgen.records.store import RecordFile, best, merge, ranked, read_all, read_records

RECORD = Record(
    model="model.pt2",
    workload={"batch": 1, "in_channels": 8},
    places=None,
    weight={"structure": "pattern", "size": 100, "nonzeros": 25, "spread": 0.1, "patterns": [1, 2]},
    trial={"structure": "pattern", "params": {}, "max_group": 4, "template": "pixels", "lanes": 16},
    predicted_cycles=1e6,
    target={"name": "host", "isa": "avx2", "triple": "x86_64-linux-gnu", "cpu": "haswell", "features": []},
    device={"class": "local: some processor", "device": "local"},
    threads=1,
    versions={"pconvgen": "0.1.0", "apache-tvm": "0.27.0"},
    unit=SECONDS,
    repeats=(3e-3, 1e-3, 2e-3),
    failure=None,
    time="2026-01-01T00:00:00+00:00",
)
FAILED = replace(RECORD, repeats=(), failure=Failure("crash", "SIGSEGV\nhere"))


def written(path: Path, *records: Record) -> Path:
    file = RecordFile(path)
    for record in records:
        file.append(record)
    file.close()
    return path


NETWORK = NetworkRecord(
    model="model.pt2", layers=9e-3, target=RECORD.target, device=RECORD.device, threads=1, versions=RECORD.versions,
    unit=SECONDS, repeats=(1.1e-2, 1e-2, 0.9e-2), time=RECORD.time,
)  # fmt: skip


def test_records_of_networks_are_kept_beside_those_of_layers(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(RECORD.to_line() + NETWORK.to_line())
    assert list(read_all(path)) == [RECORD, NETWORK]
    assert list(read_records(path)) == [RECORD]
    assert NETWORK.cost == 1e-2
    assert NETWORK.where == RECORD.where
    assert merge([path, path], tmp_path / "m.jsonl") == (2, 2)
    assert list(read_all(tmp_path / "m.jsonl")) == [RECORD, NETWORK]
    for change in ({"repeats": []}, {"layers": 0.0}, {"unit": "hours"}, {"color": 1}):
        with pytest.raises(ValueError, match="record"):
            from_line(json.dumps({**json.loads(NETWORK.to_line()), **change}))


def test_records_survive(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", RECORD, FAILED)
    assert list(read_records(path)) == [RECORD, FAILED]
    assert path.read_text().count("\n") == 2
    assert RECORD.cost == 2e-3
    assert FAILED.cost is None


def test_a_torn_line_is_skipped_and_not_continued(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", RECORD)
    with path.open("a") as file:
        file.write(RECORD.to_line()[:70])
    with pytest.warns(PconvgenWarning, match="line 2"):
        assert list(read_records(path)) == [RECORD]
    written(path, FAILED)
    with pytest.warns(PconvgenWarning, match="line 2"):
        assert list(read_records(path)) == [RECORD, FAILED]


@pytest.mark.parametrize("text", ["no records\nat all\n", "{}\n{}\n", "\x00\xff" * 400, '{"format": "other"}\n' * 3])
def test_what_is_foreign_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    before = path.read_bytes()
    with pytest.raises(PconvgenError, match="no file of records"):
        list(read_records(path))
    with pytest.raises(PconvgenError, match="no file of records"):
        RecordFile(path)
    assert path.read_bytes() == before


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.touch()
    assert list(read_records(path)) == []
    assert list(read_records(written(path, RECORD))) == [RECORD]


def test_a_newer_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({**json.loads(RECORD.to_line()), "version": VERSION + 1}) + "\n")
    with pytest.raises(PconvgenError, match="update pconvgen"):
        list(read_records(path))


@pytest.mark.parametrize("change", [{"repeats": []}, {"unit": "furlongs"}, {"failure": {"kind": "crash", "text": ""}}])
def test_contradictions_are_no_records(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="record"):
        from_line(json.dumps({**json.loads(RECORD.to_line()), **change}))


def test_a_huge_file_of_something_else_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(PconvgenError, match="no file of records"):
        list(read_records(path))


def test_merging_leaves_out_what_is_repeated(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", RECORD, FAILED), written(tmp_path / "2", FAILED, replace(RECORD, threads=2))
    assert merge([first, second], tmp_path / "3") == (3, 1)
    assert list(read_records(tmp_path / "3")) == [RECORD, FAILED, replace(RECORD, threads=2)]


def test_best_is_by_task_target_and_device() -> None:
    fast = replace(RECORD, repeats=(1e-3,))
    other = replace(RECORD, target={**RECORD.target, "cpu": "znver4"}, repeats=(5e-3,))
    slow_device = replace(RECORD, device={"class": "local: another"}, repeats=(9e-3,))
    counted = replace(RECORD, unit=INSTRUCTIONS, device={"class": "emulated: aarch64"}, repeats=(1e6,))
    found = best([RECORD, FAILED, fast, other, slow_device, counted])
    assert sorted(record.repeats[0] for record in found.values()) == [1e-3, 5e-3, 9e-3, 1e6]


def test_of_records_that_are_as_good_statically_the_analytic_model_chooses() -> None:
    fast, likely, slow = (
        replace(RECORD, unit=CYCLES, repeats=(cycles,), predicted_cycles=predicted)
        for cycles, predicted in ((1.00e6, 2e6), (1.02e6, 1e6), (1.10e6, 0.5e6))
    )
    assert ranked([slow, fast, FAILED, likely]) == [likely, fast, slow]
    timed = [replace(record, unit=SECONDS) for record in (slow, likely, fast)]
    assert ranked(timed) == timed[::-1], "times know of caches"


def test_tasks_differ_by_layer_layout_structure_and_density() -> None:
    weight = RECORD.weight
    keys = {
        task_key({"a": 1}, None, weight),
        task_key({"a": 2}, None, weight),
        task_key({"a": 1}, {"source": 1}, weight),
        task_key({"a": 1}, None, {**weight, "structure": "dense"}),
        task_key({"a": 1}, None, {**weight, "nonzeros": 50}),
    }
    assert len(keys) == 5
    assert task_key({"a": 1}, None, weight) == task_key({"a": 1}, None, {**weight, "spread": 0.3}), "statistics only"


def _append(path: Path, number: int) -> None:
    written(path, *(replace(RECORD, threads=number, repeats=(1e-3 * (i + 1),) * 300) for i in range(20)))


def test_several_processes_append(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(path, number)) for number in range(1, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = list(read_records(path))
    assert len(records) == 60
    assert {record.threads for record in records} == {1, 2, 3}
