"""Piecewise-linear latency curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pconvgen.errors import UsageError
from pconvgen.whatif.curve import MOST, curve


@given(st.floats(0.05, 0.9), st.floats(0.0, 2.0), st.floats(0.2, 3.0))
def test_knots_lie_where_the_curve_bends(bend: float, slope: float, offset: float) -> None:
    """Flat, then rising: as reading weights hides behind something, until it does not."""

    def cost(density: float) -> float:
        return offset + slope * max(0.0, density - bend)

    found = curve(cost, 0.02, 1.0)
    assert len(found.densities) <= MOST
    assert list(found.costs) == sorted(found.costs)
    for density in np.linspace(0.02, 1.0, 99):
        assert found.at(density) == pytest.approx(cost(density), rel=0.05)


def test_noise_does_not_make_more_weights_faster() -> None:
    rng = np.random.default_rng(0)
    found = curve(lambda density: (1 + density) * rng.uniform(0.9, 1.1), 0.0, 1.0)
    assert list(found.costs) == sorted(found.costs)
    assert sum(found.costs) == pytest.approx(sum(1 + density for density in found.densities), rel=0.05)


def test_a_line_needs_three_knots() -> None:
    asked: list[float] = []
    found = curve(lambda density: asked.append(density) or 1 + density, 0.1, 0.9)  # type: ignore[func-returns-value]
    assert found.densities == (0.1, 0.5, 0.9)
    assert sorted(asked) == [0.1, 0.5, 0.9]


def test_outside_nothing_is_known() -> None:
    found = curve(lambda density: density, 0.1, 0.9)
    with pytest.raises(UsageError, match="ends before"):
        found.at(0.95)
