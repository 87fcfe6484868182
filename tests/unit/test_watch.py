"""Phases of long work: their seconds, and what watchers are told."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from pconvgen.report import console
from pconvgen.report.timings import peak_memory, timings_table
from pconvgen.watch import Watch, phase, step, watching


def work() -> None:
    with phase("outer"):
        time.sleep(0.02)
        with phase("inner"):
            step("layer 1")
            time.sleep(0.04)
        step("rest")
    with phase("outer"):
        time.sleep(0.01)


def test_seconds_belong_to_the_innermost_phase() -> None:
    told: list[str] = []
    begin = time.perf_counter()
    with watching(told.append) as watch:
        work()
    whole = time.perf_counter() - begin
    assert list(watch.seconds) == ["outer", "inner"]
    assert watch.seconds["outer"] >= 0.03
    assert watch.seconds["inner"] >= 0.04
    assert sum(watch.seconds.values()) <= whole
    assert told == ["outer", "inner", "inner: layer 1", "outer: rest", "outer"]


def test_a_phase_that_fails_is_counted() -> None:
    with watching() as watch, pytest.raises(ValueError, match="no"), phase("outer"), phase("inner"):
        raise ValueError("no")
    assert list(watch.seconds) == ["outer", "inner"]
    with watching() as again:
        work()
    assert set(again.seconds) == {"outer", "inner"}


def test_without_a_watcher_nothing_is_told() -> None:
    work()
    with watching() as watch:
        pass
    assert not watch.seconds


def test_other_threads_have_watchers_of_their_own() -> None:
    found: list[Watch] = []

    def other() -> None:
        with watching() as watch:
            work()
        found.append(watch)

    with watching() as mine:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert not mine.seconds
    assert set(found[0].seconds) == {"outer", "inner"}


def test_the_table_leaves_out_what_takes_no_time() -> None:
    table = timings_table({"layouts": 1.25, "norms": 0.001})
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows[:2] == [("layouts", "1.25"), ("total", "1.25")]


def test_the_table_tells_the_peak_of_memory() -> None:
    before = peak_memory()
    kept = bytearray(256 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    assert peak_memory() >= max(before, len(kept))
    *_, (name, mebibytes) = zip(*(column.cells for column in timings_table({}).columns), strict=True)
    assert name == "peak memory, MiB"
    assert int(mebibytes) >= 256


class Terminal(io.StringIO):
    """Standard error of somebody who looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_work_that_lasts_says_what_it_is_at(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "PATIENCE_S", patience)
    with console.progress("compiling m[0].pt2") as report:
        report("kernels: conv[1]")
        time.sleep(0.3)
    assert ("compiling m[0].pt2: kernels: conv[1]" in terminal.getvalue()) == (patience == 0)
