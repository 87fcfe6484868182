"""Every structure: detection is lossless and honest about what it stores, encodings keep TapEncoding's promises."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.errors import PconvgenError
from pconvgen.sparsity import STRUCTURES, Candidate, candidates, density, encode, project, smallest
from pconvgen.sparsity.taps import TapEncoding, sort_groups

KERNELS = [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3), (5, 5), (7, 7), (2, 7)]
MASKS = ["empty", "single", "full", "elements", "kernels", "filters", "channels", "blocks", "shared"]


def random_mask(rng, kind, shape):
    """Bool mask of `shape` in which about half of the units named by `kind` survive."""
    filters, channels, kh, kw = shape
    if kind == "empty":
        return np.zeros(shape, bool)
    if kind == "full":
        return np.ones(shape, bool)
    if kind == "single":
        mask = np.zeros(shape, bool)
        mask[tuple(rng.integers(0, n) for n in shape)] = True
        return mask
    units = {
        "elements": shape,
        "kernels": (filters, channels, 1, 1),
        "filters": (filters, 1, 1, 1),
        "channels": (1, channels, 1, 1),
        "shared": (1, 1, kh, kw),
    }
    if kind in units:
        return np.broadcast_to(rng.random(units[kind]) < 0.5, shape)
    blocks = rng.random((-(-filters // 4), -(-channels // 4), kh, kw)) < 0.4
    return blocks.repeat(4, 0)[:filters].repeat(4, 1)[:, :channels]


@st.composite
def layers(draw):
    """(weight, groups): random sizes, also odd ones and depthwise, with one of many kinds of sparsity."""
    depthwise = draw(st.booleans()) and draw(st.booleans())
    groups = draw(st.integers(1, 9) if depthwise else st.sampled_from([1, 1, 1, 2, 3]))
    per_group = 1 if depthwise else draw(st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 19]))
    channels = 1 if depthwise else draw(st.integers(1, 11))
    shape = (groups * per_group, channels, *draw(st.sampled_from(KERNELS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_normal(shape, dtype=np.float32) + np.float32(10)
    mask = random_mask(rng, draw(st.sampled_from(MASKS)), shape)
    return np.where(mask, weight, np.float32(0)), groups


def check_encoding(encoding: TapEncoding, weight, groups: int, max_group: int) -> None:
    """What kernels rely on."""
    filters, channels, kh, kw = weight.shape
    n_bodies, taps = len(encoding.bodies), len(encoding.bodies[0])
    per_group = filters // groups
    assert encoding.order.dtype == encoding.indptr.dtype == encoding.entries.dtype == np.int32
    assert encoding.values.dtype == np.float32
    assert {len(body) for body in encoding.bodies} == {taps}
    assert encoding.values.shape == (len(encoding.entries), taps, encoding.group)
    assert 1 <= encoding.group <= max_group
    assert sorted(encoding.order[encoding.order >= 0]) == list(range(filters))
    assert encoding.indptr.shape == (encoding.groups * n_bodies + 1,)
    assert encoding.indptr[0] == 0
    assert encoding.indptr[-1] == len(encoding.entries)
    sizes = np.diff(encoding.indptr[::n_bodies])
    assert (np.diff(sizes) >= 0).all()

    for g in range(encoding.groups):
        assert encoding.order[g, 0] >= 0
        owners = set(encoding.order[g][encoding.order[g] >= 0] // per_group)
        assert len(owners) == 1
        first = owners.pop() * channels
        for b, body in enumerate(encoding.bodies):
            span = slice(*encoding.indptr[g * n_bodies + b : g * n_bodies + b + 2])
            entries, values = encoding.entries[span], encoding.values[span]
            assert len(np.unique(entries, axis=0)) == len(entries)
            assert not values[:, :, encoding.order[g] < 0].any()
            for tap in body:
                assert ((entries[:, 1:] == 0) | (np.array(tap[1:]) == 0)).all()
                at = entries + np.array(tap)
                assert (at >= [first, 0, 0]).all()
                assert (at < [first + channels, kh, kw]).all()


def stored_without_padding(encoding: TapEncoding) -> int:
    """Stored weights of the lanes that compute a filter."""
    sizes = np.diff(encoding.indptr[:: len(encoding.bodies)])
    return int((sizes * (encoding.order >= 0).sum(axis=1)).sum()) * len(encoding.bodies[0])


@settings(max_examples=250)
@given(layers(), st.sampled_from([1, 3, 4, 8, 16]))
def test_round_trip(layer, max_group):
    weight, groups = layer
    found = candidates(weight, groups)
    for candidate in found:
        encoding = encode(weight, candidate, groups, max_group)
        check_encoding(encoding, weight, groups, max_group)
        np.testing.assert_array_equal(encoding.decode(weight.shape, groups), weight, err_msg=str(candidate))
    assert [c.structure for c in found].count("dense") == 1
    assert found[-1].structure == "dense"
    assert found == candidates(weight.copy(), groups)


@settings(max_examples=150)
@given(layers())
def test_candidates_count_what_encodings_store(layer):
    weight, groups = layer
    for candidate in candidates(weight, groups):
        assert candidate.nonzeros == np.count_nonzero(weight)
        assert 0 <= candidate.fill <= 1
        whole = encode(weight, candidate, groups, max_group=16)
        assert np.count_nonzero(whole.values) == candidate.nonzeros
        if candidate.structure in ("dense", "filter"):
            assert stored_without_padding(whole) == candidate.stored
        else:
            assert whole.stored == candidate.stored
            assert encode(weight, candidate, groups, max_group=4).stored <= candidate.stored


@pytest.mark.parametrize("name", STRUCTURES)
def test_candidate_stored_is_exact_for_aligned_shapes(name):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((64, 16, 3, 3), dtype=np.float32)
    weight = project(name, weight, 0.25)
    for candidate in STRUCTURES[name].detect(weight):
        encoding = encode(weight, candidate, max_group=16)
        assert encoding.stored == candidate.stored


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("max_group", [1, 4, 8, 16])
def test_shape_is_that_of_the_encoding(name, max_group):
    rng = np.random.default_rng(2)
    weight = project(name, rng.standard_normal((64, 16, 3, 3), dtype=np.float32), 0.25)
    for candidate in STRUCTURES[name].detect(weight):
        encoding = encode(weight, candidate, max_group=max_group)
        shape = candidate.shape(filters=64, groups=1, max_group=max_group)
        assert (shape.group, shape.taps, shape.bodies) == (
            encoding.group,
            len(encoding.bodies[0]),
            len(encoding.bodies),
        )
        # Sub-blocks that are empty are not stored, groups of filters that are gone are not counted.
        assert len(encoding.entries) <= shape.entries
        if candidate.unit <= max_group:
            assert len(encoding.entries) == shape.entries
        assert encoding.groups == shape.groups or name == "filter"


def test_smallest_is_the_structure_that_was_asked_for():
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((64, 32, 3, 3), dtype=np.float32)
    assert smallest(candidates(weight)).structure == "dense"
    for name, structure in STRUCTURES.items():
        assert smallest(candidates(project(structure.name, weight, 0.2))).structure == name


@pytest.mark.parametrize("name", STRUCTURES)
def test_table_row(name):
    structure = STRUCTURES[name]
    assert structure.name == name
    weight = project(structure.name, np.random.default_rng(0).standard_normal((16, 8, 3, 3), dtype=np.float32), 0.25)
    found = structure.detect(weight)
    assert found
    assert {c.structure for c in found} == {name}
    # What would store as much as dense gains nothing and is no candidate of a layer.
    assert all((c in candidates(weight)) == (c.stored < weight.size or name == "dense") for c in found)
    assert len({str(c) for c in found}) == len(found)


def test_import_needs_numpy_only():
    code = "import sys, pconvgen.sparsity; sys.exit(bool({'tvm', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_density():
    weight = np.zeros((2, 2, 1, 1), np.float32)
    assert density(weight) == 0.0
    weight[0, 1] = 3
    assert density(weight) == 0.25


def test_empty_filters_stay_in_order():
    weight = np.zeros((6, 4, 3, 3), np.float32)
    weight[[1, 4]] = 1
    weight[:, 2] = 0
    (candidate,) = STRUCTURES["filter"].detect(weight)
    assert (candidate.stored, candidate.nonzeros, candidate.fill) == (2 * 3 * 9, 54, 1.0)
    encoding = encode(weight, candidate)
    assert encoding.group == 2
    assert encoding.order.tolist() == [[0, 2], [3, 5], [1, 4]]
    assert encoding.indptr.tolist() == [0, 0, 0, 3]
    assert encoding.entries[:, 0].tolist() == [0, 1, 3]


def test_filter_looks_at_channels_of_its_own_convolution_group():
    weight = np.ones((4, 3, 1, 1), np.float32)
    assert STRUCTURES["filter"].detect(weight, groups=2) == ()
    weight[:2, 1] = 0
    (candidate,) = STRUCTURES["filter"].detect(weight, groups=2)
    assert candidate.stored == 2 * 2 + 2 * 3
    assert STRUCTURES["filter"].detect(weight, groups=1) == ()


def test_dense_bodies():
    def bodies(*kernel):
        weight = np.ones((16, 2, *kernel), np.float32)
        encoding = encode(weight, candidates(weight)[-1])
        return encoding.bodies, len(encoding.entries), encoding.group

    assert bodies(1, 1) == ((((0, 0, 0),),), 2 * 2, 8)
    assert bodies(3, 3) == ((tuple((0, r, c) for r in range(3) for c in range(3)),), 2 * 2, 8)
    assert bodies(5, 5) == ((tuple((0, 0, c) for c in range(5)),), 2 * 2 * 5, 8)


@pytest.mark.parametrize("name", STRUCTURES)
def test_depthwise_has_one_filter_per_group(name):
    weight = np.ones((10, 1, 3, 3), np.float32)
    weight[:, :, 0, 0] = weight[3] = 0
    found = STRUCTURES[name].detect(weight, groups=10)
    assert bool(found) == (STRUCTURES[name].fit(weight.shape, groups=10) is not None)
    assert all(encode(weight, c, groups=10).group == 1 for c in found)


def test_simd_block_candidates():
    def params(weight, groups=1):
        return [(c.params["n"], c.params["whole_kernel"]) for c in STRUCTURES["simd_block"].detect(weight, groups)]

    assert params(np.ones((16, 1, 1, 1))) == [(2, False), (4, False), (8, False), (16, False)]
    assert params(np.ones((5, 1, 3, 3))) == [(2, False), (4, False), (2, True), (4, True)]
    assert params(np.ones((16, 1, 1, 1)), groups=4) == [(2, False), (4, False)]


def test_block_punched_candidates():
    def params(shape, groups=1):
        found = STRUCTURES["block_punched"].detect(np.ones(shape, np.float32), groups)
        return [(c.params["filters"], c.params["channels"]) for c in found]

    assert params((16, 8, 3, 3)) == [(4, 4), (8, 4), (16, 4), (8, 8)]
    assert params((16, 8, 1, 1), groups=2) == [(4, 4), (8, 4), (8, 8)]
    assert params((9, 5, 1, 1)) == [(4, 4), (8, 4)]
    assert params((3, 8, 1, 1)) == []


def test_simd_block_splits_into_groups_and_skips_empty_halves():
    weight = np.zeros((16, 2, 1, 1), np.float32)
    weight[3, 1] = weight[9, 0] = weight[12, 1] = 1
    encoding = encode(weight, Candidate("simd_block", {"n": 16, "whole_kernel": False}), max_group=8)
    assert encoding.order.tolist() == [list(range(8)), list(range(8, 16))]
    assert encoding.indptr.tolist() == [0, 1, 3]
    assert encoding.entries[:, 0].tolist() == [1, 0, 1]


def test_block_punched_body_and_ragged_channels():
    weight = np.zeros((8, 6, 3, 3), np.float32)
    weight[:, :, 1, 2] = np.arange(48, dtype=np.float32).reshape(8, 6) + 1
    encoding = encode(weight, Candidate("block_punched", {"filters": 8, "channels": 4}))
    assert encoding.bodies == (((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)),)
    assert encoding.entries.tolist() == [[0, 1, 2], [2, 1, 2]]
    assert not encoding.values[1, :2].any()
    np.testing.assert_array_equal(encoding.values[1, 2:], weight[:, 4:, 1, 2].T)


def test_block_punched_needs_enough_channels():
    weight = np.ones((8, 3, 3, 3), np.float32)
    assert STRUCTURES["block_punched"].detect(weight) == ()
    with pytest.raises(PconvgenError, match="at most 3"):
        encode(weight, Candidate("block_punched", {"filters": 8, "channels": 4}))


def test_filter_groups_keep_to_their_block():
    weight = np.ones((10, 1, 1, 1), np.float32)
    encoding = encode(weight, Candidate("simd_block", {"n": 4, "whole_kernel": False}), groups=2, max_group=3)
    assert encoding.order.tolist() == [[0, 1, 2], [3, -1, -1], [4, -1, -1], [5, 6, 7], [8, -1, -1], [9, -1, -1]]


def test_sort_groups_is_stable():
    encoding = TapEncoding(
        bodies=(((0, 0, 0),), ((0, 0, 1),)),
        order=np.array([[0], [1], [2]], np.int32),
        indptr=np.array([0, 1, 2, 3, 3, 3, 5], np.int32),
        entries=np.array([[c, 0, 0] for c in range(5)], np.int32),
        values=np.arange(5, dtype=np.float32).reshape(5, 1, 1),
    )
    done = sort_groups(encoding)
    assert done.order.tolist() == [[1], [0], [2]]
    assert done.indptr.tolist() == [0, 1, 1, 2, 3, 3, 5]
    assert done.values.reshape(-1).tolist() == [2, 0, 1, 3, 4]


@pytest.mark.parametrize("name", STRUCTURES)
def test_encoding_a_wide_layer_needs_little_memory(name):
    """Temporaries stay well below one int64 index per weight: 100 M weights have to fit."""
    weight = project(name, np.ones((512, 512, 3, 3), np.float32), 0.25)
    candidate = STRUCTURES[name].detect(weight)[0]
    tracemalloc.start()
    encoding = encode(weight, candidate)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    result = encoding.values.nbytes + encoding.entries.nbytes
    assert peak < 3 * result + 6 * weight.size
