"""When this machine is ready to be measured, as `native/steady.h` says it of others, and whether it was slowed down.

Nothing here imports numpy or TVM: it is part of the process that measures.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WINDOW_S, MOST_WARM_UP_S = 0.01, 1.0
FALL = 0.02
"""Windows that differ by less are alike."""
ALIKE = 3
WARMER = 10.0
"""Degrees above the start at which a measurement waits."""
MOST_COOL_S, COOL_STEP_S = 10.0, 0.25
THROTTLED = 0.8
"""Of its highest clock: a core below was slowed down by heat, or never sped up."""
SYS = Path("/sys")


def until_steady(run: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    """Runs something until windows of some milliseconds no longer get faster, as caches fill and clocks rise, or for a
    second. The seconds that one run takes then."""
    best, alike, taken, started = math.inf, 0, 0.0, now()
    while alike < ALIKE and now() - started < MOST_WARM_UP_S:
        runs, begun = 0, now()
        while runs == 0 or now() - begun < WINDOW_S:
            run()
            runs += 1
        taken = (now() - begun) / runs
        alike = 0 if taken < (1 - FALL) * best else alike + 1
        best = min(best, taken)
    return taken


@dataclass(frozen=True)
class Conditions:
    """What Linux tells of heat and clocks; None where it does not.

    Attributes
    ----------
    celsius: of the hottest zone.
    mhz, most_mhz: the clock of a core, and its highest.
    throttled: how often it was slowed down by heat since the machine was started. Processors that tell this have
        clocks above what all cores can keep up, so that the clock itself tells nothing.
    """

    celsius: float | None
    mhz: float | None
    most_mhz: float | None
    throttled: int | None

    def slowed_down(self, before: Conditions) -> bool:
        """Whether the core was, since `before`."""
        if self.throttled is not None and before.throttled is not None:
            return self.throttled > before.throttled
        return self.mhz is not None and self.most_mhz is not None and self.mhz < THROTTLED * self.most_mhz


def conditions(core: int, sys: Path = SYS) -> Conditions:
    """Those of now."""
    cpu = sys / "devices/system/cpu" / f"cpu{core}"
    mhz, most = (_number(cpu / "cpufreq" / name) for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
    throttled = _number(cpu / "thermal_throttle/core_throttle_count")
    return Conditions(
        celsius(sys), mhz and mhz / 1000, most and most / 1000, None if throttled is None else int(throttled)
    )


def celsius(sys: Path = SYS) -> float | None:
    """Degrees of the hottest thermal zone."""
    found = [_number(path) for path in sys.glob("class/thermal/thermal_zone*/temp")]
    degrees = [value / 1000 if value > 1000 else value for value in found if value is not None]
    return max((value for value in degrees if 0 < value < 200), default=None)


@functools.cache
def at_start() -> float | None:
    """`celsius` when this process first asked."""
    return celsius()


def cool_down(
    start: float | None,
    now: Callable[[], float | None] = celsius,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Waits, for a while, until it is no more than some degrees warmer than at the start: the seconds waited."""
    waited = 0.0
    while start is not None and waited < MOST_COOL_S and (now() or 0.0) > start + WARMER:
        sleep(COOL_STEP_S)
        waited += COOL_STEP_S
    return waited


def _number(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        return float(path.read_text())
    return None
