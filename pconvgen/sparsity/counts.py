"""How a weight's non-zeros are spread over its filters and kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.assemble import CHUNK
from pconvgen.sparsity.structure import Weight


@dataclass(frozen=True, eq=False)
class WeightCounts:
    """What is counted of a weight.

    Attributes
    ----------
    filters: int64 [filters], non-zeros of each.
    kernels: int64 [positions of a kernel + 1], how many kernels have that many non-zeros.
    """

    filters: NDArray[np.int64]
    kernels: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many weights there are, zeros included."""
        return int(self.kernels.sum()) * (len(self.kernels) - 1)

    @property
    def nonzeros(self) -> int:
        """Of all filters."""
        return int(self.filters.sum())

    @property
    def spread(self) -> float:
        """Standard deviation of the filters' non-zeros by their mean."""
        return float(self.filters.std() / max(self.filters.mean(), 1e-9))


def count(weight: Weight) -> WeightCounts:
    """Counts a weight's non-zeros, some filters at a time: a fully connected layer may have 100 M weights."""
    positions = weight.shape[2] * weight.shape[3]
    filters = np.empty(len(weight), np.int64)
    kernels = np.zeros(positions + 1, np.int64)
    step = max(1, CHUNK // max(1, weight[:1].size))
    for first in range(0, len(weight), step):
        part = weight[first : first + step]
        alive = (part != 0).reshape(len(part), -1, positions)
        # Position by position: sums along an axis of few elements take many times longer.
        found = alive[:, :, 0].astype(np.uint16)
        for position in range(1, positions):
            found += alive[:, :, position]
        filters[first : first + step] = found.sum(1)
        kernels += np.bincount(found.ravel(), minlength=positions + 1)
    return WeightCounts(filters, kernels)
