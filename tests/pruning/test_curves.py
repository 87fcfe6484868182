"""The file that keeps what layers cost, for other budgets and trainings."""

from __future__ import annotations

import json

import pytest
import torch

from pconvgen.errors import PconvgenError, PconvgenWarning, UsageError
from pconvgen.pruning import ADMMPruner, Latency, OneShotPruner, costs
from pconvgen.pruning.allocation import NetworkCosts
from pconvgen.pruning.pruner import CALIBRATIONS
from pconvgen.whatif.curve import LatencyCurve
from tests.pruning.models import inputs, mixed, train

DENSE_MS = 10.0


@pytest.fixture
def asked(monkeypatch):
    """How often curves were measured; what they say is made up, and so is what networks take."""
    calls = []

    def measure(budget, constraints, program, report):
        calls.append(budget.ms)
        share = DENSE_MS / len(constraints)
        curves = {c.name: LatencyCurve((0.05, c.units().share), (0.05 * share, share)) for c in constraints}
        return NetworkCosts(budget.ms, "ms", 0.0, curves)

    monkeypatch.setattr(costs, "_latency_costs", measure)
    monkeypatch.setattr("pconvgen.pruning.pruner.device_of", lambda budget: None)
    return calls


def prune(path, ms, structure="simd_block"):
    pruner = OneShotPruner(mixed(), (inputs(),), structure, Latency("host", ms, curves=path))
    pruner.harden()
    return pruner


def test_curves_are_measured_once_for_all_budgets(tmp_path, asked):
    path = tmp_path / "curves.json"
    first, second = prune(path, 5.0), prune(path, 2.0)
    assert asked == [5.0]
    kept = [sum(row.weights * row.density for row in pruner.report()) for pruner in (first, second)]
    assert kept[1] < kept[0]
    assert second.step(0).budget == 2.0


def test_without_a_file_curves_are_measured_each_time(asked):
    prune(None, 5.0)
    prune(None, 5.0)
    assert asked == [5.0, 5.0]


def test_curves_of_other_layers_are_refused(tmp_path, asked):
    path = tmp_path / "curves.json"
    prune(path, 5.0)
    with pytest.raises(UsageError, match=r"curves.json: these curves are of other layers.*found layers.*remove the"):
        prune(path, 5.0, "unstructured")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"about": 1, "costs": {}}', json.dumps({"about": {}, "costs": {}})])
def test_a_damaged_file_is_told_as_such(tmp_path, asked, text):
    path = tmp_path / "curves.json"
    path.write_text(text)
    with pytest.raises(PconvgenError, match="this file keeps no curves"):
        prune(path, 5.0)
    assert path.read_text() == text


def test_a_folder_that_is_not_there_is_noticed_before_measuring(tmp_path, asked):
    with pytest.raises(PconvgenError, match="cannot"):
        prune(tmp_path / "nowhere" / "curves.json", 5.0)
    assert not asked


def test_measuring_in_a_training_leaves_graphs_and_weights_alone(monkeypatch, tmp_path, asked):
    taken = []

    def measure(program, budget, device):
        weight = program.state_dict["block.weight"]
        taken.append(2.0 * DENSE_MS * float((weight != 0).float().mean()))
        return taken[-1]

    monkeypatch.setattr("pconvgen.pruning.pruner.device_of", lambda budget: "a device")
    monkeypatch.setattr("pconvgen.pruning.pruner.measure_ms", measure)
    model = mixed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruner = ADMMPruner(model, (inputs(),), "simd_block", Latency("host", 5.0), include=["block"])
    loss = model(inputs()).square().sum()
    (loss + pruner.penalty()).backward()
    assert len(taken) == CALIBRATIONS
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "norm" not in name)
    train(model, pruner, 1)
    pruner.harden()
    assert 0.97 * 5.0 <= taken[-1] <= 5.0
    assert float((model.block.weight != 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert pruner.step(1).cost == pytest.approx(taken[-1], rel=0.05)


def test_a_network_that_is_slower_than_its_budget_is_warned_of(monkeypatch, asked):
    monkeypatch.setattr("pconvgen.pruning.pruner.device_of", lambda budget: "a device")
    monkeypatch.setattr("pconvgen.pruning.pruner.measure_ms", lambda program, budget, device: 6.0 + asked[0] / 1e3)
    with pytest.warns(PconvgenWarning, match=r"Mixed: the pruned network takes 6.005 ms, the budget is 5 ms"):
        prune(None, 5.0)


def test_curves_of_images_of_another_size_are_refused(tmp_path, asked):
    path = tmp_path / "curves.json"
    prune(path, 5.0)
    small = (torch.zeros(2, 3, 4, 4),)
    with pytest.raises(UsageError, match="these curves are of other layers"):
        OneShotPruner(mixed(), small, "simd_block", Latency("host", 5.0, curves=path)).harden()


def test_layers_that_cost_nothing_keep_all_their_weights(monkeypatch):
    def measure(budget, constraints, program, report):
        found = {c.name: LatencyCurve((0.05, 1.0), (0.5, 10.0)) for c in constraints if c.name != "wide"}
        return NetworkCosts(budget.ms, "ms", 0.0, found)

    monkeypatch.setattr(costs, "_latency_costs", measure)
    monkeypatch.setattr("pconvgen.pruning.pruner.device_of", lambda budget: None)
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), "simd_block", Latency("host", 20.0))
    train(model, pruner, 1)
    pruner.harden()
    assert torch.count_nonzero(model.wide.weight) == model.wide.weight.numel()
    assert 0 < pruner.step(1).cost <= 20.0
    assert float((model.block.weight != 0).float().mean()) < 1
