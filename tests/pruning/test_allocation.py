"""What layers keep under a budget: as good as the best of all choices, and never more than the budget."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pconvgen.errors import UsageError
from pconvgen.pruning.allocation import NetworkCosts, allocate, levels, value
from pconvgen.sparsity import STRUCTURES
from pconvgen.whatif.curve import LatencyCurve


def problem(seed, layers=3, choices=6):
    """Random layers: worth rises with density, costs rise in steps that are not convex."""
    rng = np.random.default_rng(seed)
    values, curves = {}, {}
    for layer in range(layers):
        densities = np.sort(rng.uniform(0.05, 1, choices))
        costs = np.cumsum(rng.exponential(size=choices) ** 3)
        curves[f"layer{layer}"] = LatencyCurve(tuple(densities.tolist()), tuple(costs.tolist()))
        values[f"layer{layer}"] = (densities, np.sort(-rng.exponential(size=choices)))
    floor = sum(curve.costs[0] for curve in curves.values())
    roof = sum(curve.costs[-1] for curve in curves.values())
    fixed, scale = float(rng.uniform(0, 1)), float(rng.uniform(0.5, 2))
    budget = scale * (fixed + floor + rng.uniform(0.05, 1) * (roof - floor))
    return NetworkCosts(budget, "ms", fixed, curves, scale), values


def best(costs, values, budget):
    """The largest worth that fits, by trying everything."""
    found = -np.inf
    for choice in product(*(range(len(densities)) for densities, _ in values.values())):
        picked = {name: float(values[name][0][i]) for name, i in zip(values, choice, strict=True)}
        if costs.total(picked) <= budget:
            found = max(found, sum(values[name][1][i] for name, i in zip(values, choice, strict=True)))
    return found


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_better_fits_into_a_budget_a_thousandth_smaller(seed):
    costs, values = problem(seed)
    found = allocate(costs, values)
    assert costs.total(found) <= costs.budget * (1 + 1e-9)
    worth = sum(values[name][1][list(values[name][0]).index(share)] for name, share in found.items())
    assert worth >= best(costs, values, 0.999 * costs.budget) - 1e-9
    assert worth <= best(costs, values, costs.budget * (1 + 1e-9)) + 1e-9


def test_a_budget_below_the_lowest_densities_is_refused_with_the_floor():
    costs = NetworkCosts(1.0, "ms", 0.75, {"conv": LatencyCurve((0.05, 1.0), (0.5, 2.0))})
    with pytest.raises(UsageError, match=r"found 1 ms, expected 1.25 or more, 0.75 of them for what is not pruned"):
        allocate(costs, {"conv": (np.array([0.05, 1.0]), np.array([-1.0, 0.0]))})


def test_a_budget_of_exactly_the_lowest_densities_is_met():
    curves = {f"conv{i}": LatencyCurve((0.05, 1.0), (1 / 3, 2.0)) for i in range(7)}
    values = {name: (np.array([0.05, 1.0]), np.array([-1.0, 0.0])) for name in curves}
    floor = NetworkCosts(1.0, "ms", 0.0, curves).total(dict.fromkeys(curves, 0.05))
    assert set(allocate(NetworkCosts(floor, "ms", 0.0, curves), values).values()) == {0.05}


def test_all_is_kept_where_the_budget_pays_for_it():
    costs, values = problem(1)
    generous = NetworkCosts(
        2 * costs.total({n: d[-1] for n, (d, _) in values.items()}), "ms", costs.fixed, costs.curves
    )
    assert allocate(generous, values) == {name: densities[-1] for name, (densities, _) in values.items()}


def test_value_is_the_logarithm_of_the_share_of_the_squared_norm_that_is_left():
    weight = np.array([3.0, 4.0, 12.0, 0.0], np.float32).reshape(4, 1, 1, 1)
    units = STRUCTURES["unstructured"].units(weight)
    np.testing.assert_allclose(value(units, np.array([0.25, 0.5, 1.0])), np.log([144 / 169, 160 / 169, 1.0]))


def test_value_of_a_weight_of_zeros_does_not_matter():
    units = STRUCTURES["unstructured"].units(np.zeros((4, 4, 3, 3), np.float32))
    assert not value(units, np.array([0.1, 1.0])).any()


def test_levels_stay_on_the_curve():
    curve = LatencyCurve((0.05, 4 / 9), (1.0, 2.0))
    found = levels(curve)
    assert found[0] == 0.05
    assert found[-1] == 4 / 9
    assert [curve.at(float(share)) for share in found]


def test_a_measurement_scales_all_costs():
    costs, values = problem(2)
    shares = {name: float(densities[0]) for name, (densities, _) in values.items()}
    assert costs.measured(shares, 7.0).total(shares) == pytest.approx(7.0)
    assert NetworkCosts.from_json(costs.to_json()) == costs
