"""What long work is at, and how long its phases take: told to whoever watches.

with watching(print) as watch:   # prints "layouts", "kernels: features.3.conv", ...
    pconvgen.compile(model)
watch.seconds                    # {"read": 1.9, "layouts": 0.8, "kernels": 0.7, "build": 4.1, ...}

TVM's PassInstrument sees passes alone, and not what reads, plans, links and writes between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

Report = Callable[[str], None]

_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass(eq=False)
class Watch:
    """Seconds of phases; of one within another, to the inner one only.

    Attributes
    ----------
    report: told each phase as it begins, and each step of it.
    seconds: phase -> seconds, in the order in which they began.
    """

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    def _turn(self) -> None:
        """Counts the time since the last turn to the phase that is open."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def watching(report: Report = lambda _: None) -> Iterator[Watch]:
    """Watches what this thread does within the block."""
    watch = Watch(report)
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A phase of long work."""
    watch = _WATCH.get()
    if watch is None:
        yield
        return
    watch._turn()
    watch._open.append(name)
    watch.seconds.setdefault(name, 0.0)
    watch.report(name)
    try:
        yield
    finally:
        watch._turn()
        watch._open.pop()


def step(what: str) -> None:
    """What the phase that is open is at."""
    watch = _WATCH.get()
    if watch is not None and watch._open:
        watch.report(f"{watch._open[-1]}: {what}")
