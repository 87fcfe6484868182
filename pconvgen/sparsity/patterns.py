"""Sets of kernel patterns: PCONV's four, the natural ones, and the most frequent of a weight."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.structure import Weight

Pattern = tuple[tuple[int, int], ...]
"""Positions (row, column) that survive in a kernel, sorted."""

MAX_POSITIONS = 64
"""Largest kernel, in weights: supports are handled as bits of one uint64."""

PCONV_PATTERNS: tuple[Pattern, ...] = (
    ((0, 1), (1, 0), (1, 1), (1, 2)),
    ((0, 1), (1, 0), (1, 1), (2, 1)),
    ((0, 1), (1, 1), (1, 2), (2, 1)),
    ((1, 0), (1, 1), (1, 2), (2, 1)),
)
"""The centre and three of its four edge neighbours on 3x3 (Ma et al., PCONV, AAAI 2020, figure of the patterns)."""


@cache
def natural_patterns() -> tuple[Pattern, ...]:
    """The 56 patterns of 3x3 that keep the centre and three more weights (Niu et al., PatDNN, ASPLOS 2020)."""
    around = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    return tuple(tuple(sorted([(1, 1), *others])) for others in combinations(around, 3))


def top_patterns(weight: Weight, k: int, entries: int = 4) -> tuple[Pattern, ...]:
    """The `k` patterns that describe most kernels of `weight`, most frequent first (PatDNN's pattern set).

    A kernel votes for its centre and its `entries` - 1 largest other weights; empty kernels do not vote. Fewer than
    `k` patterns come back when there are fewer. Equal counts are ordered by position, so the result is reproducible.
    """
    kh, kw = weight.shape[2:]
    size = np.abs(weight).reshape(-1, kh * kw)
    size = size[size.any(axis=1)]
    size[:, (kh // 2) * kw + kw // 2] = np.inf
    chosen = np.argsort(-size, axis=1, kind="stable")[:, :entries].astype(np.uint64)
    supports, counts = np.unique(np.bitwise_or.reduce(np.uint64(1) << chosen, axis=1), return_counts=True)
    rank = np.argsort(-counts, kind="stable")[:k]
    return tuple(to_pattern(int(s), kw) for s in supports[rank])


def support_bits(weight: Weight) -> NDArray[np.uint64]:
    """Non-zero positions of each kernel as bits, row * kernel width + column: uint64 [filters, channels]."""
    kh, kw = weight.shape[2:]
    bits = np.zeros(weight.shape[:2], np.uint64)
    for i in range(kh * kw):
        bits |= (weight[:, :, i // kw, i % kw] != 0).astype(np.uint64) << np.uint64(i)
    return bits


def to_pattern(bits: int, kw: int) -> Pattern:
    """Positions of the set bits."""
    return tuple(divmod(i, kw) for i in range(bits.bit_length()) if bits >> i & 1)


def to_bits(pattern: Pattern, kw: int) -> int:
    """Inverse of `to_pattern`."""
    return sum(1 << (r * kw + c) for r, c in pattern)
