"""How far predictions of a device's costs were off, and so how far the next ones may be."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

FIRST = 0.3
"""Standard deviation of the logarithm of a cost, before anything was predicted and measured."""
FIRST_COUNTS = 4
"""Predictions that this counts as."""
LATEST = 32
"""Predictions that count: models learn, and earlier ones were worse."""


class Doubt:
    """Compares predictions with what was measured."""

    def __init__(self) -> None:
        self._errors: deque[float] = deque(maxlen=LATEST)

    def compare(self, predicted: float, measured: float) -> None:
        """Takes note of one prediction."""
        self._errors.append(math.log(measured / predicted))

    @property
    def deviation(self) -> float:
        """Standard deviation to expect of the logarithm of a cost."""
        squares = FIRST_COUNTS * FIRST**2 + sum(error**2 for error in self._errors)
        return math.sqrt(squares / (FIRST_COUNTS + len(self._errors)))

    @property
    def errors(self) -> Sequence[float]:
        """Of the latest predictions: by how much, as a share of the prediction, the measured cost was another."""
        return [math.exp(error) - 1 for error in self._errors]

    def __str__(self) -> str:
        if not self._errors:
            return "nothing was predicted"
        off = median(abs(error) for error in self.errors)
        return f"the latest {len(self._errors)} predictions were off by {off:.0%} (median)"
