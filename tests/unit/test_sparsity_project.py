"""Projections: the structure recognises its own, twice is as good as once, and nothing of the same size is nearer."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.errors import PconvgenError
from pconvgen.sparsity import STRUCTURES, candidates, density, project
from pconvgen.sparsity.patterns import PCONV_PATTERNS

PARAMS = [
    *((name, {}) for name in STRUCTURES),
    ("unstructured", {"m": 4}),
    *(("simd_block", {"n": n, "whole_kernel": whole}) for n in (2, 4, 8, 16) for whole in (False, True)),
    *(("block_punched", {"filters": f, "channels": c}) for f, c in ((4, 4), (8, 4), (16, 4), (8, 8))),
    ("pattern", {"patterns": PCONV_PATTERNS}),
    ("pattern", {"patterns": PCONV_PATTERNS, "balanced": False}),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(("name", "params"), PARAMS)
@pytest.mark.parametrize("groups", [1, 4])
def test_structure_detects_its_own_projection(name, params, groups):
    weight = project(name, normal(64, 16, 3, 3), 0.25, groups=groups, **params)
    wanted = {k: v for k, v in params.items() if k in ("n", "whole_kernel", "filters", "channels")}
    alike = [c for c in STRUCTURES[name].detect(weight, groups) if wanted.items() <= c.params.items()]
    found = max(alike, key=lambda candidate: candidate.fill)
    assert len(alike) == 1 or not wanted
    assert found.fill == 1.0
    if name != "dense":
        assert found.stored < weight.size
        assert density(weight) == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("groups", [1, 2])
def test_params_of_candidates_are_params_of_projections(groups):
    weight = project("pattern", normal(16, 8, 3, 3), 0.2, groups=groups)
    found = candidates(weight, groups)
    assert {c.structure for c in found} >= set(STRUCTURES) - {"filter"}
    for candidate in found:
        again = project(candidate.structure, weight, 1.0, groups=groups, **candidate.params)
        np.testing.assert_array_equal(again, weight)


@pytest.mark.parametrize(("name", "params"), PARAMS)
@settings(max_examples=25)
@given(
    filters=st.integers(1, 9),
    channels=st.integers(1, 6),
    groups=st.integers(1, 2),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1, 1e-30]),
)
def test_projection_is_idempotent_and_only_removes(name, params, filters, channels, groups, share, seed, scale):
    weight = normal(filters * groups, channels, 3, 3, seed=seed) * np.float32(scale)
    before = weight.copy()
    once = project(name, weight, share, groups=groups, **params)
    np.testing.assert_array_equal(weight, before)
    assert once.dtype == np.float32
    assert once.any()
    np.testing.assert_array_equal(once[once != 0], weight[once != 0])
    np.testing.assert_array_equal(project(name, once, share, groups=groups, **params), once)


def blocks(shape, filters, channels, whole_kernel, groups=1):
    """Boolean masks of all blocks."""
    per_group = shape[0] // groups
    for q, f, c in product(range(groups), range(0, per_group, filters), range(0, shape[1], channels)):
        lanes = slice(q * per_group + f, q * per_group + min(f + filters, per_group))
        for position in [(slice(None), slice(None))] if whole_kernel else product(range(shape[2]), range(shape[3])):
            mask = np.zeros(shape, bool)
            mask[(lanes, slice(c, c + channels), *position)] = True
            yield mask


TINY = [
    ("unstructured", (3, 2, 1, 2), 1, {}, (1, 1, False)),
    ("filter", (7, 2, 2, 1), 1, {}, (1, 2, True)),
    ("simd_block", (4, 2, 1, 2), 1, {"n": 2}, (2, 1, False)),
    ("simd_block", (5, 3, 1, 1), 1, {"n": 2}, (2, 1, False)),
    ("simd_block", (6, 2, 1, 2), 2, {"n": 2}, (2, 1, False)),
    ("simd_block", (8, 4, 2, 2), 1, {"n": 4, "whole_kernel": True}, (4, 1, True)),
    ("block_punched", (4, 4, 2, 1), 1, {"filters": 2, "channels": 2}, (2, 2, False)),
    ("block_punched", (5, 3, 1, 2), 1, {"filters": 4, "channels": 2}, (4, 2, False)),
]


@pytest.mark.parametrize(("name", "shape", "groups", "params", "unit"), TINY)
@pytest.mark.parametrize(("share", "scale"), [(0.01, 1), (0.4, 1), (0.6, 1), (0.4, 1e-30)])
def test_nothing_is_nearer_than_the_projection(name, shape, groups, params, unit, share, scale):
    weight = normal(*shape, seed=7) * np.float32(scale)
    units = list(blocks(shape, *unit, groups=groups))
    count = max(1, round(share * len(units)))
    result = project(name, weight, share, groups=groups, **params)
    kept = [bool((result[mask] == weight[mask]).all()) for mask in units]
    assert sum(kept) == count
    exact = weight.astype(np.float64)  # squares of tiny float32 numbers underflow
    best = min(np.linalg.norm(exact[~np.any(chosen, axis=0)]) for chosen in combinations(units, count))
    assert np.linalg.norm(exact - result) == pytest.approx(best, rel=1e-5, abs=0)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("kernels", [1, 2, 3, 4])
def test_nothing_is_nearer_than_the_pattern_projection(balanced, kernels):
    weight = normal(2, 2, 3, 3, seed=3)
    weight[0] *= 10
    result = project("pattern", weight, kernels * 4 / 36, patterns=PCONV_PATTERNS, balanced=balanced)
    masks = np.zeros((4, 3, 3), bool)
    for mask, pattern in zip(masks, PCONV_PATTERNS, strict=True):
        mask[tuple(zip(*pattern, strict=True))] = True
    best = np.inf
    for chosen in combinations(range(4), kernels):
        per_filter = [sum(i // 2 == f for i in chosen) for f in range(2)]
        if balanced and abs(per_filter[0] - per_filter[1]) > 1:
            continue
        for patterns in product(masks, repeat=kernels):
            keep = np.zeros((4, 3, 3), bool)
            keep[list(chosen)] = patterns
            best = min(best, np.linalg.norm(weight[~keep.reshape(weight.shape)]))
    assert np.count_nonzero(result) == kernels * 4
    assert np.linalg.norm(weight - result) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.333, 0.5, 1.0])
def test_unstructured_keeps_exactly(share):
    weight = normal(7, 5, 3, 3)
    assert np.count_nonzero(project("unstructured", weight, share)) == max(1, round(share * weight.size))


def test_equal_weights_are_kept_in_order():
    weight = np.array([1, 1, 0.5, 1, 2, 1, 3, 1], np.float32).reshape(2, 4, 1, 1)
    assert project("unstructured", weight, 0.5).reshape(-1).tolist() == [1, 1, 0, 0, 2, 0, 3, 0]


def test_pattern_projection_of_tiny_weights():
    weight = normal(4, 4, 3, 3)
    tiny = project("pattern", weight * np.float32(1e-30), 0.2, patterns=PCONV_PATTERNS)
    np.testing.assert_array_equal(tiny != 0, project("pattern", weight, 0.2, patterns=PCONV_PATTERNS) != 0)


def test_pattern_balance():
    weight = normal(6, 10, 3, 3) * np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1, 1)

    def kernels(balanced):
        result = project("pattern", weight, 32 * 4 / weight.size, balanced=balanced)
        return (result != 0).any(axis=(2, 3)).sum(axis=1)

    assert sorted(kernels(True)) == [5, 5, 5, 5, 6, 6]
    assert kernels(False).sum() == 32
    assert np.ptp(kernels(False)) > 1


def test_pattern_projection_keeps_all_kernels_at_high_density():
    result = project("pattern", normal(4, 4, 3, 3), 0.9)
    assert ((result != 0).sum(axis=(2, 3)) == 4).all()


@pytest.mark.parametrize(("kernel", "entries"), [((3, 3), 4), ((5, 5), 11), ((7, 7), 22), ((1, 3), 1), ((2, 2), 2)])
def test_pattern_projection_chooses_its_patterns(kernel, entries):
    result = project("pattern", normal(8, 8, *kernel), 1.0)
    supports = {tuple(k) for k in (result != 0).reshape(64, -1)}
    assert {sum(s) for s in supports} == {entries}
    assert len(supports) <= 8


def test_all_zero_weight_stays_zero():
    for name in STRUCTURES:
        assert not project(name, np.zeros((8, 4, 3, 3), np.float32), 0.5).any()


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
@pytest.mark.parametrize("name", [n for n in STRUCTURES if n != "dense"])
def test_density_out_of_range(name, share):
    with pytest.raises(PconvgenError, match="0 < density <= 1"):
        project(name, normal(4, 4, 3, 3), share)


@pytest.mark.parametrize("kernel", [(1, 1), (9, 9)])
def test_pattern_does_not_apply(kernel):
    weight = normal(4, 4, *kernel)
    with pytest.raises(PconvgenError, match="use simd_block or unstructured"):
        project("pattern", weight, 0.5)
    weight[0] = 0
    assert STRUCTURES["pattern"].detect(weight) == ()


@pytest.mark.parametrize("patterns", [[], [[]], [[[0, 0]], [[0, 1], [1, 1]]], [[[3, 0]]]])
def test_wrong_patterns(patterns):
    with pytest.raises(PconvgenError, match="inside 3x3"):
        project("pattern", normal(4, 4, 3, 3), 0.5, patterns=patterns)
