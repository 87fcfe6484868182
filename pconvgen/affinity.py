"""The cores of this machine: which there are, and which a model may use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from pconvgen.errors import UsageError

CLUSTERS: dict[str, Callable[[Iterable[float]], float]] = {"big": max, "little": min}


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(core_numbers())


def core_numbers() -> tuple[int, ...]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def parse_cores(text: str) -> tuple[int, ...]:
    """ "0-2,5" as (0, 1, 2, 5).

    Raises
    ------
    UsageError: the text is no set of cores, or an empty one.
    """
    cores: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise UsageError(
                "this is no set of cores",
                found=repr(text),
                expected="numbers and ranges, such as 0-3 or 0,2",
                remedy=f"this machine has the cores {format_cores(core_numbers())}",
            )
        cores.update(range(first, last + 1))
    return tuple(sorted(cores))


def choose_cores(text: str, clocks: Mapping[int, float]) -> tuple[int, ...]:
    """The cores that a text names: as `parse_cores`, or "big" or "little" for those with the highest or lowest clock.

    Raises
    ------
    UsageError: the text is no set of cores, or the device has cores of one kind only.
    """
    if text not in CLUSTERS:
        return parse_cores(text)
    if len(set(clocks.values())) < 2:
        raise UsageError(
            f"the device has no {text} cores",
            found="one kind of cores" if clocks else "no clocks that it tells",
            remedy="name cores by their numbers, such as 0-3",
        )
    wanted = CLUSTERS[text](clocks.values())
    return tuple(sorted(core for core, mhz in clocks.items() if mhz == wanted))


def format_cores(cores: Iterable[int]) -> str:
    """The inverse of `parse_cores`: (0, 1, 2, 5) as "0-2,5"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def check_threads(threads: int, cores: Sequence[int] | None = None) -> tuple[int, ...]:
    """The cores for that many threads: `cores`, or all of this machine when it is None.

    Raises
    ------
    UsageError: there is no such core; or fewer threads than one or more than cores, which would share them and make
        times meaningless.
    """
    there = core_numbers()
    chosen = there if cores is None else tuple(sorted(set(cores)))
    if not chosen or set(chosen) - set(there):
        raise UsageError(
            "no such cores",
            found=format_cores(set(chosen) - set(there)) or "none",
            expected=f"some of {format_cores(there)}",
            remedy="name cores that this machine has and that this process may use",
        )
    if not 1 <= threads <= len(chosen):
        raise UsageError(
            "impossible number of threads",
            found=threads,
            expected=f"1 to {len(chosen)}",
            remedy="use no more threads than cores",
        )
    return chosen
