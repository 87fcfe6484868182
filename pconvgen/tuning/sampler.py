"""Trials to learn from rather than to be fast: of each layer the default, and some that are drawn by chance."""

from __future__ import annotations

from collections.abc import Sequence

from pconvgen.tuning.tuner import Progress, Proposal, Tuner

DRAWN = 6
"""Schedules of each layer that are drawn."""
NEAREST = 60
"""Half of them among so many that are predicted best."""


class Sampler(Tuner):
    """Goes round the layers, the default schedule of each first, until each has so many."""

    def _propose(self, count: int, building: Sequence[Progress]) -> list[Proposal]:
        open_tasks = [progress for progress in self.progress.values() if progress.untried and _tried(progress) <= DRAWN]
        if not open_tasks:
            return []
        progress = min(open_tasks, key=_tried)
        tried = _tried(progress)
        among = len(progress.untried) if tried % 2 else min(NEAREST, len(progress.untried))
        index = 0 if not tried else int(self._rng.integers(among))
        return [Proposal(progress, *progress.untried.pop(index))]


def _tried(progress: Progress) -> int:
    """Trials of a layer, those included that are being built."""
    return len(progress.task.choices) - len(progress.untried)
