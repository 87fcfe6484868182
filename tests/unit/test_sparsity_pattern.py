"""Pattern sets, pattern detection from weights alone, and the FKW form of the encoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.errors import PconvgenError
from pconvgen.sparsity import STRUCTURES, Candidate, encode
from pconvgen.sparsity.patterns import (
    PCONV_PATTERNS,
    natural_patterns,
    support_bits,
    to_bits,
    to_pattern,
    top_patterns,
)

detect = STRUCTURES["pattern"].detect


def from_supports(supports, kernel=(3, 3)):
    """Weight [kernels, 1, h, w] of ones at the positions of each support."""
    weight = np.zeros((len(supports), 1, *kernel), np.float32)
    for i, support in enumerate(supports):
        for r, c in support:
            weight[i, 0, r, c] = 1
    return weight


def planted(rng, kernel, n_patterns, entries, filters=6, channels=7):
    """Random weight that uses each of `n_patterns` random patterns at least once, and has empty kernels."""
    positions = kernel[0] * kernel[1]
    masks = set()
    while len(masks) < n_patterns:
        masks.add(tuple(sorted(rng.choice(positions, entries, replace=False).tolist())))
    patterns = sorted(masks)
    use = rng.permutation([*range(n_patterns), *rng.integers(-1, n_patterns, filters * channels - n_patterns)])
    weight = np.zeros((filters * channels, positions), np.float32)
    for kernel_weight, p in zip(weight, use, strict=True):
        if p >= 0:
            kernel_weight[list(patterns[p])] = rng.uniform(1, 2, entries)
    expected = [[list(divmod(i, kernel[1])) for i in p] for p in patterns]
    return weight.reshape(filters, channels, *kernel), expected


def test_pconv_patterns():
    assert len(set(PCONV_PATTERNS)) == 4
    for pattern in PCONV_PATTERNS:
        assert len(pattern) == 4
        assert (1, 1) in pattern
        assert not {(0, 0), (0, 2), (2, 0), (2, 2)} & set(pattern)
    assert set(PCONV_PATTERNS) <= set(natural_patterns())


def test_natural_patterns():
    assert len(set(natural_patterns())) == 56
    assert all(len(set(p)) == 4 and (1, 1) in p and list(p) == sorted(p) for p in natural_patterns())


def test_bits_and_patterns():
    for pattern in natural_patterns():
        assert to_pattern(to_bits(pattern, 3), 3) == pattern
    assert support_bits(from_supports([[], [(0, 0), (2, 2)]])).tolist() == [[0], [0b100000001]]
    assert support_bits(from_supports([[(7, 7)]], (8, 8))).tolist() == [[1 << 63]]


def test_top_patterns_counts_votes():
    weight = from_supports([PCONV_PATTERNS[2]] * 3 + [PCONV_PATTERNS[0]] * 2 + [PCONV_PATTERNS[1]] + [[]] * 9)
    assert top_patterns(weight, 2) == (PCONV_PATTERNS[2], PCONV_PATTERNS[0])
    assert len(top_patterns(weight, 9)) == 3
    assert top_patterns(weight * 0, 8) == ()


def test_top_patterns_prefers_large_weights_and_keeps_the_centre():
    weight = np.full((1, 1, 3, 3), 0.1, np.float32)
    weight[0, 0, [0, 0, 2], [0, 2, 1]] = [-3, 2, 1]
    weight[0, 0, 1, 1] = 0
    assert top_patterns(weight, 1) == (((0, 0), (0, 2), (1, 1), (2, 1)),)


def test_top_patterns_orders_ties_by_position():
    patterns = natural_patterns()
    forward, backward = from_supports(patterns), from_supports(patterns[::-1])
    assert top_patterns(forward, 8) == top_patterns(backward, 8)


@settings(max_examples=80)
@given(
    st.sampled_from([(3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (2, 3)]),
    st.integers(1, 16),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
def test_detection_finds_the_planted_set(kernel, n_patterns, entries, seed):
    entries = min(entries, kernel[0] * kernel[1] - 1)
    n_patterns = min(n_patterns, kernel[0] * kernel[1] // (1 if entries == 1 else 2))
    weight, expected = planted(np.random.default_rng(seed), kernel, n_patterns, entries)
    (candidate,) = detect(weight)
    assert candidate.params["patterns"] == expected
    assert candidate.fill == 1.0


def test_accidental_zeros_fit_into_their_pattern():
    weight, expected = planted(np.random.default_rng(5), (3, 3), 4, 4, filters=20, channels=20)
    kernels = weight.reshape(-1, 9)
    rows = np.flatnonzero(kernels.any(axis=1))[::5]
    kernels[rows, kernels[rows].argmax(axis=1)] = 0
    (candidate,) = detect(weight)
    assert candidate.params["patterns"] == expected
    assert candidate.stored - candidate.nonzeros == len(rows)
    np.testing.assert_array_equal(encode(weight, candidate).decode(weight.shape), weight)


def test_small_supports_are_completed_to_a_new_pattern():
    weight = from_supports(
        [[(0, 0), (0, 1), (0, 2)], [(2, 0), (2, 1)], [(2, 1), (2, 2)], [(1, 1)], [(0, 1)], [(1, 1)], [(1, 0)]]
    )
    (candidate,) = detect(weight)
    patterns = candidate.params["patterns"]
    assert [[0, 0], [0, 1], [0, 2]] in patterns
    assert [[2, 0], [2, 1], [2, 2]] in patterns
    assert len(patterns) == 3
    assert {len(p) for p in patterns} == {3}
    assert candidate.stored == 7 * 3


def test_at_most_sixteen_patterns():
    sixteen = natural_patterns()[:16]
    assert len(detect(from_supports(sixteen))[0].params["patterns"]) == 16
    assert detect(from_supports([*sixteen, natural_patterns()[16]])) == ()
    # The same limit when the seventeenth is only a part of a pattern that fits nowhere else.
    assert detect(from_supports([*sixteen, [(2, 0), (2, 2)]])) == ()
    assert len(detect(from_supports([*sixteen[:15], [(2, 0), (2, 2)]]))[0].params["patterns"]) == 16


def test_full_kernels_and_empty_weights_have_no_pattern():
    assert detect(np.ones((4, 4, 3, 3), np.float32)) == ()
    assert detect(np.zeros((4, 4, 3, 3), np.float32)) == ()
    weight = from_supports([PCONV_PATTERNS[0], [(r, c) for r in range(3) for c in range(3)]])
    assert detect(weight) == ()


def test_detection_does_not_depend_on_the_order_of_kernels():
    weight = from_supports([[(0, 0), (0, 1), (0, 2)], [(2, 0)], [(2, 1)], [(2, 2), (1, 0)], [(1, 1)], [(1, 2)]])
    assert detect(weight) == detect(weight[::-1].copy())


def test_encoding_is_fkw():
    """Hand-made: 3 filters x 3 channels, 2 patterns; filters sorted by length, kernels by pattern, then channel."""
    a, b = ((0, 0), (0, 1)), ((0, 0), (1, 0))
    weight = np.zeros((3, 3, 2, 2), np.float32)
    for value, (f, c, pattern) in enumerate([(0, 0, b), (0, 1, a), (0, 2, b), (2, 2, a), (2, 1, a)], start=1):
        for r, s in pattern:
            weight[f, c, r, s] = value
    (candidate,) = detect(weight)
    assert candidate.params["patterns"] == [[list(p) for p in pattern] for pattern in (a, b)]
    encoding = encode(weight, candidate)
    assert encoding.bodies == (((0, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 1, 0)))
    assert encoding.order.tolist() == [[1], [2], [0]]
    assert encoding.indptr.tolist() == [0, 0, 0, 2, 2, 3, 5]
    assert encoding.entries.tolist() == [[1, 0, 0], [2, 0, 0], [1, 0, 0], [0, 0, 0], [2, 0, 0]]
    assert encoding.values[:, :, 0].tolist() == [[5, 5], [4, 4], [2, 2], [1, 1], [3, 3]]


def test_foreign_patterns_are_refused():
    weight = from_supports([PCONV_PATTERNS[0]])
    candidate = Candidate("pattern", {"patterns": [PCONV_PATTERNS[1]]})
    with pytest.raises(PconvgenError, match="fit none of the patterns"):
        encode(weight, candidate)
