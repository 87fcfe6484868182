"""A file of records: one JSON line for each trial, only ever appended to."""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from pconvgen.devices.units import SECONDS
from pconvgen.errors import PconvgenError, PconvgenWarning
from pconvgen.files import replacing
from pconvgen.records.record import NetworkRecord, NewerRecordError, Record, from_line, newer

LONGEST = 1 << 20
"""Characters of a line; no record comes near it, and a file of something else is not read into memory."""

NEAR = 1.03
"""How many times slower than the fastest a record may be to be as good: what measurements differ by."""


class RecordFile:
    """Appends records to a file that others may append to and read at the same time.

    Each record is written at once and on its own line, so that a process that is killed loses at most that one.

    Raises PconvgenError when the file cannot be written or has no records in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            next(read_all(path), None)
        try:
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise _unusable(path, error) from error

    def append(self, record: Record | NetworkRecord) -> None:
        """Adds one record. Raises PconvgenError when the disk is full."""
        line = record.to_line().encode()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                size = self._file.seek(0, os.SEEK_END)
                # A process that was killed may have left a part of a line.
                if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
                    line = b"\n" + line
                if self._file.write(line) != len(line):
                    raise OSError(28, "the disk is full")
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def close(self) -> None:
        """No more records follow."""
        self._file.close()


def read_records(path: Path) -> Iterator[Record]:
    """The records of layers in a file. Raises what `read_all` raises."""
    return (record for record in read_all(path) if isinstance(record, Record))


def read_all(path: Path) -> Iterator[Record | NetworkRecord]:
    """The records of a file, one after the other. Lines that are torn are skipped, with one warning for all.

    Raises
    ------
    PconvgenError: the file cannot be read, has no record in its first lines, or is of a newer version.
    """
    torn: list[int] = []
    found = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST), ""), 1):
                if not line.strip():
                    continue
                try:
                    record = from_line(line)
                except NewerRecordError as error:
                    raise newer(path, error.version) from error
                except ValueError as error:
                    torn.append(number)
                    if not found and len(torn) > 1:
                        raise _foreign(path, line) from error
                    continue
                found += 1
                yield record
    except OSError as error:
        raise _unusable(path, error) from error
    if torn and not found:
        raise _foreign(path, "")
    if torn:
        where = f"line {torn[0]}" if len(torn) == 1 else f"{len(torn)} lines, the first is line {torn[0]}"
        warnings.warn(f"{path}: skipped what is no record: {where}", PconvgenWarning, stacklevel=2)


def merge(paths: Iterable[Path], output: Path) -> tuple[int, int]:
    """Writes the records of some files to one, each once, in order; (records written, repeated ones left out).

    Raises what `read_all` and `replacing` raise.
    """
    seen: set[str] = set()
    repeated = 0
    with replacing(output) as temporary, temporary.open("w") as sink:
        for path in paths:
            for record in read_all(path):
                line = record.to_line()
                if line in seen:
                    repeated += 1
                    continue
                seen.add(line)
                sink.write(line)
    return len(seen), repeated


def best(records: Iterable[Record]) -> dict[tuple[str, tuple[str, str]], Record]:
    """The record of each (task, (target, device class)) that is to be used, see `ranked`."""
    found: dict[tuple[str, tuple[str, str]], list[Record]] = {}
    for record in records:
        if record.cost is not None:
            found.setdefault((record.task, record.where), []).append(record)
    return {key: ranked(mine)[0] for key, mine in found.items()}


def ranked(records: Iterable[Record]) -> list[Record]:
    """Those of one task, target and device class that have figures, the fastest first.

    Static figures know nothing of caches: of records that are as good by them, those come first that the analytic model
    likes best.
    """
    found = [record for record in records if record.cost is not None]
    costs = [record.cost for record in found if record.cost is not None]
    near = NEAR * min(costs, default=0.0)

    def key(record: Record) -> tuple[bool, float]:
        cost = record.cost or 0.0
        good = record.unit != SECONDS and cost <= near
        return not good, record.predicted_cycles if good else cost

    return sorted(found, key=key)


def _foreign(path: Path, line: str) -> PconvgenError:
    return PconvgenError(
        "no file of records",
        file=path,
        found=repr(line[:40]) if line else "nothing that is a record",
        expected="lines that `pconvgen tune` wrote",
        remedy="name another file",
    )


def _unusable(path: Path, error: OSError) -> PconvgenError:
    return PconvgenError(
        "records cannot be read or written",
        file=path,
        found=error.strerror or str(error),
        remedy="check the path and its permissions, and that the disk is not full",
    )
