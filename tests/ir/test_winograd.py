"""Winograd convolution: exact transforms, packed weights, legal schedules, and the layers that choose it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from pconvgen.planning.search import rank
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES, candidates, project
from pconvgen.templates.choice import Choice
from pconvgen.templates.family import FAMILIES
from pconvgen.templates.winograd.grid import TileGrid
from pconvgen.templates.winograd.product import pack_weight
from pconvgen.templates.winograd.transforms import PAIRS, TAPS, transform_weight, transforms
from pconvgen.values.core import Core
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.schedule import PixelSchedule, WinogradSchedule
from pconvgen.values.workload import RELU, ConvWorkload, Epilogue
from tests.spaces import SPACES

WINOGRAD = FAMILIES["winograd"]


def square(channels: int, filters: int, size: int) -> ConvWorkload:
    """A 3x3 layer with as many outputs as inputs."""
    return ConvWorkload(
        1, channels, size, size, filters, (3, 3), padding=(1,) * 4, epilogue=Epilogue(True, False, RELU)
    )


def ranking(w: ConvWorkload, core: Core, density: float = 1.0) -> list[Choice]:
    weight = np.random.default_rng(0).standard_normal(w.weight_shape).astype(np.float32)
    return rank(w, candidates(project("unstructured", weight, density)), replace(core, l2_kib=1024))


@pytest.mark.parametrize("m", PAIRS)
def test_transforms_are_a_convolution_exactly(m: int) -> None:
    t = transforms(m)
    for tap, at, i in product(range(TAPS), range(m + 2), range(m)):
        terms = (t.output[i][p] * t.weight[p][tap] * t.input[p][at] for p in range(m + 2))
        assert sum(terms, Fraction(0)) == int(at == i + tap)


@pytest.mark.parametrize("m", PAIRS)
def test_coefficients_in_kernels_are_exact(m: int) -> None:
    t = transforms(m)
    for coefficient in (c for matrix in (t.input, t.output) for row in matrix for c in row):
        assert Fraction(float(np.float32(float(coefficient)))) == coefficient


def test_weights_are_packed_for_groups_of_filters() -> None:
    w = square(5, 6, 9)
    weight = np.random.default_rng(0).standard_normal(w.weight_shape).astype(np.float32)
    packed = pack_weight(TileGrid(w, WinogradSchedule(4, 8, 1, 4, 1)), weight).reshape(36, 2, 5, 4)
    points = transform_weight(weight, 4).reshape(36, 6, 5)
    for f in range(8):
        expected = points[:, f] if f < 6 else np.zeros((36, 5), np.float32)
        np.testing.assert_array_equal(packed[:, f // 4, :, f % 4], expected)


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_schedules_fit_the_registers(core: Core) -> None:
    for w in (square(64, 64, 56), square(3, 5, 7), square(8, 8, 1), replace(square(1, 1, 3), width=500)):
        (dense,) = STRUCTURES["dense"].detect(np.ones(w.weight_shape, np.float32))
        (_, shape), *_ = WINOGRAD.encodings(w, dense, core)
        places = Places(plain_layout(w.in_channels, w.height, w.width), plain_layout(w.out_channels, w.height, w.width))
        priced = WINOGRAD.price(w, shape, core, places)
        assert {s.tile for s in priced.schedules} == set(PAIRS)
        for s, cycles in zip(priced.schedules, priced.cycles(places, core.costs), strict=True):
            assert s.filters * s.vectors + s.vectors + 1 <= core.isa.registers
            assert s.lanes in core.isa.lanes(w.precision.arithmetic)
            assert 1 <= s.rows <= -(-w.out_height // s.tile)
            assert cycles > 0


@pytest.mark.parametrize(
    "other", [{"stride": (2, 1)}, {"dilation": (1, 2)}, {"kernel": (3, 1)}, {"groups": 2}], ids=str
)
def test_other_layers_have_no_schedules(other: dict[str, object]) -> None:
    assert not WINOGRAD.applies(replace(square(8, 8, 20), **other))  # type: ignore[arg-type]


@pytest.mark.parametrize("core", SPACES.values(), ids=SPACES)
def test_deep_layers_choose_winograd(core: Core) -> None:
    best, direct = ranking(square(128, 128, 28), core)[:2]
    assert isinstance(best.schedule, WinogradSchedule)
    assert best.schedule.tile == 4
    assert isinstance(direct.schedule, PixelSchedule)
    assert direct.cycles > 2 * best.cycles


def test_layers_with_few_channels_stay_direct() -> None:
    """Transforms are paid for once for each channel and filter, products for each pair of them."""
    for channels, filters in ((3, 64), (1, 1), (64, 1)):
        assert isinstance(ranking(square(channels, filters, 224), CORES["avx512-zen4"])[0].schedule, PixelSchedule)


def test_large_weights_choose_smaller_tiles() -> None:
    """512 x 512 weights are 38 MB for F(4, 3), more to read from memory than there is to compute for 7 x 7 pixels."""
    best = ranking(square(512, 512, 7), CORES["avx512-zen4"])[0].schedule
    assert isinstance(best, WinogradSchedule)
    assert best.tile == 2


def test_what_is_hardly_pruned_is_never_slower_than_dense() -> None:
    """Winograd competes as a way to compute the dense weight: it wins with few zeros and loses with many."""
    fastest = {density: ranking(square(64, 64, 28), CORES["avx2"], density)[0].schedule for density in (0.05, 0.9)}
    assert not isinstance(fastest[0.05], WinogradSchedule)
    assert isinstance(fastest[0.9], WinogradSchedule)
