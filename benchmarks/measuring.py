"""How a kernel is measured on a machine with noisy neighbours.

One process, one thread. A measurement consists of rounds, and every round times each subject for some milliseconds:
the FMA peak of the core first, then the kernel, then the packing of its input. What a neighbour takes makes a round
slower and never faster, so of every subject the best round counts: the median of three repeats in it. A round is
quiet for a subject when the peak in it was close to the best one of this process and nothing else ran on the core
meanwhile. Rounds go on until enough quiet ones brought nothing better, or the time is up.

    share of the peak = best rate of the kernel / best peak of the whole run, before or after

so a peak that a neighbour halved never flatters a kernel. A row without a quiet round is noisy: it is measured again at
the end, and printed with a mark if that did not help.

Every layer has an input and a weight of its own, and repeats read the same arrays. Caches are hot: an input lies where
the layer before it would have left it, in the second cache when it fits. Weights are hot too if they fit beside it,
which those of a whole network would not be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.peak.meters import Meter

QUIET = 0.97
"""Of a quiet round: least share of the best peak, and least share of the time in which a subject had its core."""

QUIET_ROUNDS = 10
BETTER = 0.99
"""A time below this share of the best one so far is news; neighbours that fill caches do not show in the peak."""

REPEATS = 3
"""Of a round, at least."""

LIMIT_S = 0.75
"""For each subject; a row does not wait longer for quiet."""

CORE = (1,)
"""Where schedules and networks are timed while kernels are built on the others."""


@dataclass(frozen=True)
class Reading:
    """One short measurement.

    Attributes
    ----------
    ms: milliseconds of one call.
    core: share of the time in which it had its core, as the operating system knows it.
    """

    ms: float
    core: float


Subject = Callable[[], Reading]


def is_noisy(highest: float, peak: float) -> bool:
    """Whether rounds whose best peak is `highest` were all disturbed, given the best peak of the process."""
    return highest < QUIET * peak


def interleave(subjects: Mapping[str, Subject], peak: Meter) -> dict[str, float]:
    """Rounds of the peak and all subjects in turn.

    Returns the best milliseconds of every subject and, as "peak", GFLOP/s: every subject had its core in a round in
    which the peak was at least that; 0 when some subject never had it.
    """
    best = {name: _Best() for name in subjects}
    deadline = time.monotonic() + LIMIT_S * len(subjects)
    while any(subject.quiet < QUIET_ROUNDS for subject in best.values()) and time.monotonic() < deadline:
        rate = peak()
        for name, read in subjects.items():
            best[name].add(read(), rate, peak.best)
    return {name: subject.ms for name, subject in best.items()} | {"peak": min(b.peak for b in best.values())}


@dataclass
class _Best:
    """What the rounds so far say of one subject.

    Attributes
    ----------
    ms: the best round.
    peak: GFLOP/s, the best FMA peak of the rounds in which it had its core.
    quiet: quiet rounds since it last became better.
    """

    ms: float = float("inf")
    peak: float = 0.0
    quiet: int = 0

    def add(self, reading: Reading, rate: float, best_rate: float) -> None:
        """One more round, whose peak was `rate`."""
        if reading.core >= QUIET:
            self.peak = max(self.peak, rate)
            self.quiet += not is_noisy(rate, best_rate)
        if reading.ms < BETTER * self.ms:
            self.quiet = 0
        self.ms = min(self.ms, reading.ms)
