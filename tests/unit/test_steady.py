"""When a device is ready to be measured, with clocks, heat and files that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest

from pconvgen.cli.bench import line
from pconvgen.devices.device import BenchResult
from pconvgen.devices.steady import (
    COOL_STEP_S,
    MOST_COOL_S,
    MOST_WARM_UP_S,
    celsius,
    conditions,
    cool_down,
    until_steady,
)


class Clock:
    """Time passes only when something is run, by what `durations` says."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.now, self.runs, self._durations = 0.0, 0, durations

    def run(self) -> None:
        self.now += next(self._durations)
        self.runs += 1


def test_warm_up_lasts_while_runs_get_faster() -> None:
    clock = Clock(chain([0.5, 0.04, 0.03, 0.02, 0.019, 0.015], repeat(0.012)))
    assert until_steady(clock.run, lambda: clock.now) == pytest.approx(0.012)
    assert clock.runs == 7 + 3, "the first of the fastest, and three that are no faster"


def test_warm_up_of_short_runs_compares_windows() -> None:
    clock = Clock(repeat(0.001))
    assert until_steady(clock.run, lambda: clock.now) == pytest.approx(0.001)
    assert 4 * 10 <= clock.runs <= 4 * 11


def test_warm_up_ends() -> None:
    falling = Clock(0.1 * 0.97**number for number in range(1000))
    until_steady(falling.run, lambda: falling.now)
    assert MOST_WARM_UP_S <= falling.now < MOST_WARM_UP_S + 0.1
    slow = Clock(repeat(5.0))
    assert until_steady(slow.run, lambda: slow.now) == 5.0
    assert slow.runs == 1


def device(root: Path, celsius: dict[str, str], cpu: dict[str, str]) -> Path:
    """A folder like /sys."""
    for zone, text in celsius.items():
        (root / "class/thermal" / zone).mkdir(parents=True, exist_ok=True)
        (root / "class/thermal" / zone / "temp").write_text(text)
    for name, text in cpu.items():
        path = root / "devices/system/cpu/cpu3" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_linux_tells(tmp_path: Path) -> None:
    zones = {"thermal_zone0": "41500\n", "thermal_zone1": "39\n", "thermal_zone2": "-274000\n", "cooling_device0": "99"}
    clocks = {"cpufreq/scaling_cur_freq": "1200000\n", "cpufreq/cpuinfo_max_freq": "2400000\n"}
    sys = device(tmp_path, zones, clocks)
    assert celsius(sys) == 41.5
    now = conditions(3, sys)
    assert (now.celsius, now.mhz, now.most_mhz, now.throttled) == (41.5, 1200, 2400, None)
    assert now.slowed_down(now)
    device(tmp_path, {}, {"cpufreq/scaling_cur_freq": "2300000\n"})
    assert not conditions(3, sys).slowed_down(now)
    nothing = conditions(0, tmp_path / "none")
    assert (nothing.celsius, nothing.mhz, nothing.throttled, nothing.slowed_down(nothing)) == (None, None, None, False)


def test_a_count_of_throttling_is_believed_before_the_clock(tmp_path: Path) -> None:
    clocks = {"cpufreq/scaling_cur_freq": "3000000", "cpufreq/cpuinfo_max_freq": "5000000"}
    before = conditions(3, device(tmp_path, {}, {**clocks, "thermal_throttle/core_throttle_count": "7"}))
    assert not before.slowed_down(before), "its highest clock is for one core alone"
    after = conditions(3, device(tmp_path, {}, {"thermal_throttle/core_throttle_count": "8"}))
    assert after.slowed_down(before)


def test_cooling_down_is_waited_for() -> None:
    slept: list[float] = []
    heat = iter([60.0, 55.0, 51.0, 50.0])
    assert cool_down(40.0, lambda: next(heat), slept.append) == 3 * COOL_STEP_S == sum(slept)
    assert cool_down(40.0, lambda: 90.0, slept.append) == MOST_COOL_S, "not for ever"
    assert cool_down(40.0, lambda: 49.0, slept.append) == 0
    assert cool_down(None, lambda: 90.0, slept.append) == 0, "nothing to compare with"
    assert cool_down(40.0, lambda: None, slept.append) == 0


def test_spread_is_that_of_the_quartiles() -> None:
    result = BenchResult(4.0, 1.0, tuple(float(n) for n in range(1, 8)), 1, "local", "host")
    assert result.spread == (6 - 2) / 4
    assert BenchResult(None, None, (), 1, "emulated", "cortex-a76").spread is None


def test_bench_says_when_the_device_was_slowed_down() -> None:
    result = BenchResult(2.0, 1.0, (1.0, 2.0, 3.0), 1, "adb://", "android-arm64")
    assert "THROTTLED" not in line(result)
    hot = replace(result, throttled=True, conditions={"mhz after": 1200.4})
    assert "; THROTTLED to 1200 MHz: the device was slowed down, let it cool and measure again; 1 thread" in line(hot)
    assert "THROTTLED:" in line(replace(hot, conditions={}))
