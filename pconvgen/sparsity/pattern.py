"""Pattern and connectivity pruning: every surviving kernel keeps one of a few patterns.

PCONV (Ma et al., AAAI 2020, arXiv 1909.05073) and PatDNN (Niu et al., ASPLOS 2020, arXiv 2001.00138), whose FKW format
is what `Pattern.encode` produces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import UsageError
from pconvgen.sparsity.patterns import (
    MAX_POSITIONS,
    PCONV_PATTERNS,
    Pattern,
    support_bits,
    to_bits,
    to_pattern,
    top_patterns,
)
from pconvgen.sparsity.structure import Candidate, Structure, Weight
from pconvgen.sparsity.taps import TapEncoding, sort_groups
from pconvgen.sparsity.units import Units, balanced_largest, block_units, keep_largest, weight_units

# More patterns than papers ever use; each one costs a code path.
MAX_PATTERNS = 16
DEFAULT_PATTERNS = 8


class PatternStructure(Structure):
    """Params: patterns, lists of [row, column], all of the same length."""

    name = "pattern"
    connectivity = True

    def detect(self, weight: Weight, groups: int = 1) -> tuple[Candidate, ...]:
        """A candidate if at most MAX_PATTERNS patterns, smaller than the kernel, cover all kernels.

        The largest supports are patterns; smaller supports (weights that happen to be zero) need to fit into one.
        """
        kh, kw = weight.shape[2:]
        if not 1 < kh * kw <= MAX_POSITIONS:
            return ()
        bits, counts = np.unique(support_bits(weight), return_counts=True)
        bits, counts = bits[bits != 0], counts[bits != 0]
        if not bits.size or int(np.bitwise_count(bits).max()) == kh * kw:
            return ()
        chosen = cover(bits, counts, MAX_PATTERNS)
        if chosen is None:
            return ()
        patterns = sorted(to_pattern(p, kw) for p in chosen)
        return (
            Candidate(
                self.name,
                {"patterns": [[list(position) for position in p] for p in patterns]},
                stored=int(counts.sum()) * len(patterns[0]),
                nonzeros=int(np.count_nonzero(weight)),
                taps=len(patterns[0]),
                columns=sum(len({column for _, column in p}) for p in patterns) / len(patterns),
                bodies=len(patterns),
            ),
        )

    def units(
        self,
        weight: Weight,
        *,
        groups: int = 1,
        patterns: Sequence[Sequence[Sequence[int]]] | None = None,
        balanced: bool = True,
    ) -> Units:
        """Kernels, each with the pattern that keeps most of it. Without connectivity pruning all of them are kept,
        which is a density of the patterns' share of the kernel.

        Parameters
        ----------
        patterns: None takes the most frequent of the weight: 8 patterns of 4/9 of the kernel, 4 entries on 3x3.
        balanced: all filters keep equally many kernels, give or take one, so that threads finish together (PCONV).

        Raises
        ------
        UsageError: the kernel is too small or too large for patterns, or the patterns do not fit it.
        """
        filters, channels, kh, kw = weight.shape
        if not 1 < kh * kw <= MAX_POSITIONS:
            raise UsageError(
                "pattern pruning does not apply to this kernel size",
                found=f"{kh}x{kw}",
                expected=f"2 to {MAX_POSITIONS} weights per kernel",
                remedy="use simd_block or unstructured for this layer",
            )
        if patterns is None:
            chosen = top_patterns(weight, DEFAULT_PATTERNS, max(1, round(kh * kw * 4 / 9)))
        else:
            chosen = checked(patterns, kh, kw)
        if not chosen:  # only an all-zero weight has no frequent pattern
            return weight_units(weight)
        masks = pattern_masks(chosen, kh, kw)
        # float64, because squares of small float32 weights underflow and would all look equally small.
        energy = np.square(weight.reshape(-1, kh * kw), dtype=np.float64) @ masks.T.astype(np.float64)
        best = energy.argmax(axis=1)
        norms = np.sqrt(energy[np.arange(len(best)), best]).reshape(filters, channels)

        def spread(values: NDArray[Any]) -> NDArray[Any]:
            spread_out: NDArray[Any] = masks[best] * values.reshape(-1, 1)
            return spread_out.reshape(weight.shape)

        choose = balanced_largest if balanced else keep_largest
        return Units(norms, spread, share=len(chosen[0]) / (kh * kw), choose=choose)

    def fit(self, shape: tuple[int, ...], groups: int) -> dict[str, int] | None:
        """Kernels have to have positions to choose from, and not too many."""
        return {} if 1 < shape[2] * shape[3] <= MAX_POSITIONS else None

    def learn(self, weight: Weight, patterns: int | str | Sequence[Any]) -> dict[str, Any] | None:
        """Patterns: so many that keep most of a weight, those of PCONV for 3x3 kernels ("pconv"), or given ones."""
        kh, kw = weight.shape[2:]
        if not isinstance(patterns, int | str):
            chosen = tuple(patterns)
        elif patterns == "pconv" and (kh, kw) == (3, 3):
            chosen = PCONV_PATTERNS
        else:
            count = len(PCONV_PATTERNS) if isinstance(patterns, str) else patterns
            chosen = top_patterns(np.ascontiguousarray(weight), count, max(1, round(kh * kw * 4 / 9)))
        return {"patterns": [[list(position) for position in pattern] for pattern in chosen]} if chosen else None

    def keeps_all(self, shape: tuple[int, ...]) -> str:
        """Without its only kernel a filter is gone, and with it a channel of the network."""
        return "all kernels kept: one for each filter" if shape[1] == 1 else ""

    def is_promising(self, shape: tuple[int, ...], *, depthwise: bool) -> bool:
        """For kernels of more than one position."""
        return depthwise or shape[2] * shape[3] > 1

    def encode(self, weight: Weight, candidate: Candidate, *, groups: int = 1, max_group: int = 8) -> TapEncoding:
        """FKW: one filter per group, its kernels sorted by pattern and then channel, one body per pattern."""
        filters, channels, kh, kw = weight.shape
        # Column by column: taps of one column read the same vectors, a row apart, which then stay in registers.
        patterns = [tuple(sorted(p, key=lambda tap: tap[::-1])) for p in checked(candidate.params["patterns"], kh, kw)]
        supports, inverse = np.unique(support_bits(weight), return_inverse=True)
        fits = (supports[:, None] & ~np.array([to_bits(p, kw) for p in patterns], np.uint64)) == 0
        if not fits.any(axis=1).all():
            raise UsageError(
                "weight has kernels that fit none of the patterns",
                found=list(to_pattern(int(supports[~fits.any(axis=1)][0]), kw)),
                expected=f"one of {len(patterns)} patterns",
                remedy="choose the candidate that detect returns for this weight",
            )
        body = fits.argmax(axis=1)[inverse].reshape(filters, channels)
        f, c = np.nonzero(supports[inverse].reshape(filters, channels))
        row = f * len(patterns) + body[f, c]
        sort = np.argsort(row, kind="stable")  # nonzero lists channels in order, which a stable sort keeps
        f, c, row = f[sort], c[sort], row[sort]

        counts = np.bincount(row, minlength=filters * len(patterns))
        entries = np.zeros((len(row), 3), np.int32)
        entries[:, 0] = c + f // (filters // groups) * channels
        positions = np.array([[r * kw + s for r, s in p] for p in patterns])
        values = weight.reshape(filters, channels, kh * kw)[f[:, None], c[:, None], positions[body[f, c]]]
        return sort_groups(
            TapEncoding(
                bodies=tuple(tuple((0, r, s) for r, s in p) for p in patterns),
                order=np.arange(filters, dtype=np.int32)[:, None],
                indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
                entries=entries,
                values=values[:, :, None],
            )
        )


def checked(patterns: Sequence[Sequence[Sequence[int]]], kh: int, kw: int) -> tuple[Pattern, ...]:
    """`patterns` as tuples, after a check that they suit each other and the kernel."""
    found = tuple(tuple(sorted((int(r), int(c)) for r, c in p)) for p in patterns)
    same_length = len({len(p) for p in found}) == 1 and len(found[0]) > 0
    if not same_length or not all(0 <= r < kh and 0 <= c < kw for p in found for r, c in p):
        raise UsageError(
            "patterns do not suit the kernel",
            found=found,
            expected=f"one or more patterns of equally many positions inside {kh}x{kw}",
            remedy="leave patterns out to have them chosen from the weight",
        )
    return found


def pattern_masks(patterns: Sequence[Pattern], kh: int, kw: int) -> NDArray[np.bool_]:
    """bool [patterns, kernel height * kernel width]."""
    masks = np.zeros((len(patterns), kh * kw), np.bool_)
    for mask, pattern in zip(masks, patterns, strict=True):
        mask[[r * kw + c for r, c in pattern]] = True
    return masks


def connectivity(weight: Weight) -> Units:
    """Whole kernels, of which all filters keep equally many, give or take one (PCONV's other sparsity)."""
    kernels = block_units(weight, groups=1, filters=1, channels=1, whole_kernel=True)
    return replace(kernels, choose=balanced_largest)


def cover(supports: NDArray[np.uint64], counts: NDArray[np.int64], limit: int) -> list[int] | None:
    """At most `limit` patterns of one size that hold all `supports`, or None when that does not succeed.

    supports, counts: distinct non-empty supports as bits, and how many kernels have each.
    """
    sizes = np.bitwise_count(supports)
    entries = int(sizes.max())
    if np.count_nonzero(sizes == entries) > limit:
        return None
    chosen = [int(s) for s in supports[sizes == entries]]
    missing = np.all([supports & ~np.uint64(p) for p in chosen], axis=0)
    positions = np.arange(MAX_POSITIONS, dtype=np.uint64)
    used = [int(counts[(supports >> i & np.uint64(1)) != 0].sum()) for i in positions]
    popular = [int(i) for i in np.argsort(-np.array(used), kind="stable")]
    while missing.any():
        if len(chosen) == limit:
            return None
        pattern = grow(supports[missing], counts[missing], entries)
        for i in popular:
            if pattern.bit_count() < entries:
                pattern |= 1 << i
        chosen.append(pattern)
        missing &= (supports & ~np.uint64(pattern)) != 0
    return chosen


def grow(supports: NDArray[np.uint64], counts: NDArray[np.int64], entries: int) -> int:
    """The most frequent support, united with others, most frequent first, while it has at most `entries` bits."""
    pattern = supports[np.argmax(counts)]
    while True:
        union = supports | pattern
        fits = (np.bitwise_count(union) <= entries) & (union != pattern)
        if not fits.any():
            return int(pattern)
        pattern = union[np.argmax(np.where(fits, counts, 0))]
