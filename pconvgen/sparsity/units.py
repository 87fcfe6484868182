"""What a structure keeps or drops as a whole, and the projection onto the structure that follows from it.

Units do not overlap, so the nearest weight (Euclidean) of a structure keeps the units of largest L2 norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.sparsity.structure import Weight

Norms = NDArray[np.floating]
Mask = NDArray[np.bool_]


def check_density(density: float) -> None:
    """Raises UsageError unless a density is over 0 and at most 1."""
    if not 0 < density <= 1:
        raise UsageError(
            "density is out of range",
            found=density,
            expected="0 < density <= 1",
            remedy="give the share of weights to keep, e.g. 0.25",
        )


def keep_largest(score: Norms, count: int) -> Mask:
    """Mask of the `count` largest scores; among equal scores the first ones win, so that results are reproducible."""
    flat = score.reshape(-1)
    if count >= flat.size:
        return np.ones(score.shape, np.bool_)
    if count <= 0:
        return np.zeros(score.shape, np.bool_)
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    keep: Mask = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    return keep.reshape(score.shape)


def balanced_largest(norms: Norms, count: int) -> Mask:
    """Mask of `count` of norms [filters, ...], as many in each filter give or take one."""
    flat = norms.reshape(len(norms), -1)
    base, extra = divmod(count, len(flat))
    best = np.argsort(-flat, axis=1, kind="stable")
    keep = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(keep, best[:, :base], True, axis=1)
    if extra:  # then base is less than all: the filters whose next one is largest keep one more
        following = best[:, base]
        winners = np.flatnonzero(keep_largest(flat[np.arange(len(flat)), following], extra))
        keep[winners, following[winners]] = True
    return keep.reshape(norms.shape)


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one weight.

    Attributes
    ----------
    norms: L2 norm of each unit, in any shape.
    spread: values of that shape -> an array like the weight, in which each weight has the value of its unit; 0 or False
        where a weight belongs to none (outside of a kernel's pattern).
    share: of the weight that is in units; 1 unless there are weights that belong to none.
    choose: norms and a number -> mask of that many units that are kept.
    """

    norms: Norms
    spread: Callable[[NDArray[Any]], NDArray[Any]]
    share: float = 1.0
    choose: Callable[[Norms, int], Mask] = keep_largest

    def count(self, density: float) -> int:
        """How many units make up that share of the weight, at least one and at most all.

        Raises UsageError when the density is not over 0 and at most 1.
        """
        check_density(density)
        return min(max(1, round(density / self.share * self.norms.size)), self.norms.size)

    def mask(self, density: float) -> Mask:
        """The weights that are kept at a density. Raises what `count` does."""
        return self.spread(self.choose(self.norms, self.count(density)))


def weight_units(weight: Weight) -> Units:
    """Each weight is a unit."""
    return Units(np.abs(weight), lambda values: values)


def block_units(weight: Weight, *, groups: int, filters: int, channels: int, whole_kernel: bool = False) -> Units:
    """Blocks of `filters` x `channels` weights at one kernel position, or of whole kernels.

    They start anew in each convolution group and may be incomplete at its end.
    """
    n_filters, n_channels = weight.shape[:2]
    per_group = n_filters // groups
    filter_cuts = [*(q * per_group + i for q in range(groups) for i in range(0, per_group, filters)), n_filters]
    channel_cuts = np.arange(0, n_channels, channels)
    energy = np.empty((len(filter_cuts) - 1, len(channel_cuts), *weight.shape[2:]))
    for i, (lo, hi) in enumerate(pairwise(filter_cuts)):
        # float64, because squares of small float32 weights underflow and would all look equally small.
        rows = np.square(weight[lo:hi], dtype=np.float64).sum(axis=0)
        energy[i] = rows if channels == 1 else np.add.reduceat(rows, channel_cuts, axis=0)
    if whole_kernel:
        energy = energy.sum(axis=(2, 3), keepdims=True)

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        rows = values if channels == 1 else np.repeat(values, np.diff([*channel_cuts, n_channels]), axis=1)
        rows = rows if filters == 1 else np.repeat(rows, np.diff(filter_cuts), axis=0)
        return np.broadcast_to(rows, weight.shape)

    return Units(np.sqrt(energy), spread)
