"""Splitting a weight loses nothing, stores nothing twice and knows what both parts store."""

import numpy as np
import pytest

from pconvgen.sparsity import encode
from pconvgen.sparsity.split import SHARE, SIZES, splits
from tests.mixtures import mixture


@pytest.mark.parametrize("seed", range(30))
def test_parts_are_the_weight(seed):
    rng = np.random.default_rng(seed)
    groups, per_group, channels = (int(n) for n in rng.integers((1, 3, 1), (4, 20, 7)))
    shape = (groups * per_group, channels, *(int(n) for n in rng.integers(1, 5, 2)))
    weight = mixture(shape, float(rng.random()), float(rng.random()), n=4, groups=groups, seed=seed)
    for split in splits(weight, groups):
        blocks, rest = split.parts(weight, groups)
        np.testing.assert_array_equal(blocks + rest, weight)
        assert not (blocks.astype(bool) & rest.astype(bool)).any()
        n = split.blocks.params["n"]
        for start in (g * per_group + i for g in range(groups) for i in range(0, per_group, n)):
            end = min(start + n, (start // per_group + 1) * per_group)
            counts = np.count_nonzero(blocks[start:end], axis=0)
            assert ((counts == 0) | (counts >= split.least)).all()
            assert (np.count_nonzero(rest[start:end], axis=0) < split.least).all()
        for part, candidate in ((blocks, split.blocks), (rest, split.rest)):
            encoding = encode(part, candidate, groups, max_group=n)
            assert (encoding.stored, np.count_nonzero(part)) == (candidate.stored, candidate.nonzeros)
            np.testing.assert_array_equal(encoding.decode(shape, groups), part)
        assert split.nonzeros == np.count_nonzero(weight)


def test_blocks_and_rest_are_both_there():
    weight = mixture((16, 8, 3, 3), 0.2, 0.1)
    found = splits(weight)
    assert {split.blocks.params["n"] for split in found} == set(SIZES)
    assert all(SHARE <= split.blocks.nonzeros / split.nonzeros < 1 for split in found)
    assert all(split.blocks.fill > 0.5 for split in found)
    assert splits(np.zeros_like(weight)) == ()
    assert splits(np.ones_like(weight)) == ()
    assert splits(weight[:2]) == (), "too few filters for a block"
