"""Meeting a budget by measuring something that does not quite do what was predicted."""

import math

import pytest

from pconvgen.pruning.meet import ON_BUDGET, ROUNDS, meet


def counted(function):
    """A function that keeps what it was asked."""

    def attempt(goal):
        attempt.goals.append(goal)
        return function(goal)

    attempt.goals = []
    return attempt


@pytest.mark.parametrize("factor", [0.2, 0.9, 0.99, 1.0, 1.3, 7.0])
def test_what_is_wrong_by_a_factor_takes_two_measurements(factor):
    attempt = counted(lambda goal: factor * goal)
    goal, found = meet(10.0, attempt)
    assert ON_BUDGET[0] * 10 <= found <= ON_BUDGET[1] * 10
    assert found == factor * goal
    assert len(attempt.goals) <= 2
    assert attempt.goals[0] == 10.0


@pytest.mark.parametrize("step", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("budget", [7.3, 10.0, 31.0])
def test_what_rises_by_steps_is_met_as_well_as_it_can_be(step, budget):
    attempt = counted(lambda goal: step * math.ceil(1.4 * goal / step))
    _, found = meet(budget, attempt)
    assert min(budget - step, ON_BUDGET[0] * budget) <= found <= budget
    assert len(attempt.goals) <= ROUNDS


def test_a_constant_part_is_found():
    _, found = meet(10.0, lambda goal: 6 + 0.7 * goal)
    assert 9.7 <= found <= 10.0


def test_what_cannot_be_met_ends_with_the_smallest():
    attempt = counted(lambda goal: 12.0 + goal / 100)
    goal, found = meet(10.0, attempt)
    assert len(attempt.goals) == ROUNDS
    assert goal == min(attempt.goals)
    assert found == attempt(goal)


def test_noise_does_not_make_it_exceed_the_budget():
    noise = iter([1.04, 0.97, 1.03, 0.96, 1.05, 0.98, 1.02, 1.0, 1.01, 0.99])
    _, found = meet(10.0, lambda goal: goal * next(noise))
    assert 9.0 < found <= 10.0
