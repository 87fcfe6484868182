"""Weights of two structures at once: SIMD blocks, and single weights scattered beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.structure import Candidate, Weight

SIZES = (4, 8)
"""Filters of a block. Two give too little to be worth a second kernel."""

SHARE = 0.2
"""Share of the non-zeros that blocks hold at least: with less, they save too little to be worth a second kernel."""


@dataclass(frozen=True)
class Split:
    """A weight as the sum of two.

    A block costs one entry with a weight for each of its filters, or as many entries as it has non-zeros: blocks of few
    non-zeros are better left to the rest.

    Attributes
    ----------
    least: non-zeros that a block has at least.
    blocks: the encoding of these blocks.
    rest: that of all other non-zeros.
    """

    least: int
    blocks: Candidate
    rest: Candidate

    @property
    def stored(self) -> int:
        """Weights that both store, fill included."""
        return self.blocks.stored + self.rest.stored

    @property
    def nonzeros(self) -> int:
        """Non-zero weights among them."""
        return self.blocks.nonzeros + self.rest.nonzeros

    def __str__(self) -> str:
        return f"{self.blocks} + {self.rest}"

    def parts(self, weight: Weight, groups: int = 1) -> tuple[Weight, Weight]:
        """The weights of the blocks, and the others, zeros in the place of what the other one has."""
        n = self.blocks.params["n"]
        full = _counts(weight, groups, n) >= self.least
        inside = np.repeat(full, n, axis=1)[:, : len(weight) // groups].reshape(weight.shape)
        return np.where(inside, weight, np.float32(0)), np.where(inside, np.float32(0), weight)


def splits(weight: Weight, groups: int = 1) -> tuple[Split, ...]:
    """The ways to split a weight into blocks whose weights are mostly not zero, and a rest that is not empty."""
    nonzeros, found = int(np.count_nonzero(weight)), {}
    for n in SIZES:
        counts = _counts(weight, groups, n)
        for least in range(n // 2 + 1, n + 1):
            full = counts[counts >= least]
            inside = int(full.sum())
            if SHARE * nonzeros <= inside < nonzeros:
                params = {"n": n, "whole_kernel": False}
                blocks = Candidate("simd_block", params, stored=full.size * n, nonzeros=inside, unit=n)
                rest = Candidate("unstructured", stored=nonzeros - inside, nonzeros=nonzeros - inside)
                # Of equal blocks, the highest `least` describes them best.
                found[n, inside] = Split(least, blocks, rest)
    return tuple(found.values())


def _counts(weight: Weight, groups: int, n: int) -> NDArray[np.intp]:
    """Non-zeros of each block of `n` filters: [groups, blocks, channels, height, width]."""
    alive = (weight != 0).reshape(groups, -1, *weight.shape[1:])
    return np.add.reduceat(alive, np.arange(0, alive.shape[1], n), axis=1, dtype=np.intp)
