"""Kernels of a layer of which predictions do not tell which is faster: sparse against dense, Winograd against direct.

Of each encoding and family of kernels the best schedule contends, if what it is predicted to take may be less than what
the best of all may take. Measuring those is enough for no layer to be slower than compiled dense.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pconvgen.planning.experience import Experience
from pconvgen.templates.choice import Choice
from pconvgen.tuning.doubt import FIRST
from pconvgen.tuning.task import Task
from pconvgen.tuning.tuner import DEVIATIONS, Progress, Proposal, Tuner


class Contenders(Tuner):
    """Measures the contenders of each layer that has several, each once.

    Parameters
    ----------
    experience: what was learned of the device.
    args, options: of Tuner.
    """

    def __init__(self, experience: Experience, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting = []
        for progress in self.progress.values():
            wanted = contenders(progress.task, experience)
            found = [(choice, trial) for choice, trial in progress.untried if choice in wanted]
            self._waiting += [Proposal(progress, *pair) for pair in found]

    def _propose(self, count: int, building: Sequence[Progress]) -> list[Proposal]:
        return [self._waiting.pop(0)] if self._waiting else []


def contenders(task: Task, experience: Experience) -> list[Choice]:
    """The choices to measure so as to tell which is the fastest, the most likely first; none where that is clear."""
    best: dict[tuple[str, str], Choice] = {}
    for choice in task.choices:
        best.setdefault((choice.candidate.structure, choice.family.name), choice)
    choices = list(best.values())
    if experience.model is not None and experience.model.knows(task.workload):
        times = experience.model.times(task.layer.described(task.places), choices)
        low, high = [time.low for time in times], min(times, key=lambda time: time.middle).high
    else:
        doubt = math.exp(DEVIATIONS * FIRST)
        low, high = [choice.cycles / doubt for choice in choices], choices[0].cycles
    found = [choice for choice, least in zip(choices, low, strict=True) if least <= high]
    return found if len(found) > 1 else []
