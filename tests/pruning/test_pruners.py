"""Pruners in a training loop: what they prune, what stays pruned, what goes on where it ended."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from pconvgen.pruning import ADMMPruner, Density, IterativePruner, Macs, OneShotPruner, ReweightedPruner, Rho, Size
from pconvgen.sparsity import SPARSE, candidates, smallest
from pconvgen.sparsity.patterns import PCONV_PATTERNS, support_bits
from tests.pruning.models import inputs, mixed, train

KINDS = {
    "admm": ADMMPruner,
    "one_shot": OneShotPruner,
    "iterative": lambda *args, **options: IterativePruner(*args, epochs=2, **options),
    "reweighted": ReweightedPruner,
}
QUARTER = Density(0.25)


def pruned(structure="pattern", budget=QUARTER, kind="admm", epochs=2, **options):
    model = mixed()
    pruner = KINDS[kind](model, (inputs(),), structure, budget, **options)
    train(model, pruner, epochs)
    pruner.harden()
    return model, pruner


def follow_the_penalty(model, pruner, epochs, *, steps):
    """Training without a loss of its own."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for epoch in range(epochs):
        for _ in range(steps):
            pruner.penalty().backward()
            optimizer.step()
            optimizer.zero_grad()
        pruner.step(epoch)


def zeros(model):
    return {name: (value == 0).numpy() for name, value in model.named_parameters() if value.dim() > 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", SPARSE)
def test_every_pruner_reaches_the_density_in_every_structure(kind, structure):
    model, pruner = pruned(structure, kind=kind)
    for row in pruner.report():
        weight = model.get_parameter(f"{row.name}.weight")
        assert row.density == pytest.approx(float((weight != 0).float().mean()))
        assert row.shape == tuple(weight.shape)
        if row.name in ("stem", "head"):
            assert (row.structure, row.density, row.note) == ("dense", 1.0, "not chosen")
        elif row.note.startswith("all kernels kept"):
            assert row.name == "depthwise"
            assert row.density == pytest.approx(4 / 9)
        elif row.note.startswith("left as it is"):
            assert (row.name, row.structure, row.density) == ("depthwise", "dense", 1.0)
        else:
            assert row.density == pytest.approx(0.25, abs=0.02), row


def test_pruned_weights_stay_zero_through_fine_tuning_with_momentum_from_before():
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), "simd_block", Density(0.25))
    optimizer = train(model, pruner, 2)
    pruner.harden()
    before = zeros(model)
    assert pruner.penalty() == 0
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model, pruner, 2, optimizer=optimizer, first=2)
    after = zeros(model)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    assert all((value != weights[name]).any() for name, value in model.named_parameters()), "training went on"


def test_masks_end_with_their_pruner():
    model, pruner = pruned("unstructured")
    del pruner
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert (model.block.weight != 0).all()


def test_admm_draws_weights_to_what_is_left_of_them():
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), "simd_block", Density(0.25), rho=Rho(1.0, 1.5, 10.0))
    logs = []
    pruner._callbacks = (logs.append,)
    follow_the_penalty(model, pruner, 12, steps=10)
    assert [round(log.details["rho"], 3) for log in logs[:4]] == [1.0, 1.5, 2.25, 3.375]
    assert max(log.details["rho"] for log in logs) == 10.0
    first, last = max(logs[0].distance.values()), max(logs[-1].distance.values())
    assert last < 0.01 < 0.2 < first
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    pruner.harden()
    for name, value in model.named_parameters():
        assert (value - before[name]).norm() <= 0.011 * before[name].norm(), "hard pruning cuts almost nothing off"


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_bit_for_bit(kind):
    def start():
        model = mixed()
        return model, KINDS[kind](model, (inputs(),), "pattern", Macs(600_000))

    model, pruner = start()
    optimizer = train(model, pruner, 2)
    saved = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()}
    torch.save(state, saved)
    finished = {}
    for again in (False, True):
        if again:
            saved.seek(0)
            state = torch.load(saved, weights_only=True)
            model, pruner = start()
            model.load_state_dict(state["model"])
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            optimizer.load_state_dict(state["optimizer"])
            pruner.load_state_dict(state["pruner"])
        train(model, pruner, 2, optimizer=optimizer, first=2)
        pruner.harden()
        train(model, pruner, 1, optimizer=optimizer, first=4)
        finished[again] = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in finished[False].items():
        assert torch.equal(value, finished[True][name]), name


def test_a_hard_pruner_goes_on_with_its_masks():
    model, pruner = pruned("block_punched")
    state, weights, before = pruner.state_dict(), model.state_dict(), zeros(model)
    again = mixed(1)
    again.load_state_dict(weights)
    other = ADMMPruner(again, (inputs(),), "block_punched", Density(0.25))
    other.load_state_dict(state)
    train(again, other, 1)
    for name, gone in zeros(again).items():
        np.testing.assert_array_equal(gone, before[name])
    assert other.report() == pruner.report()


def test_a_shared_weight_is_pruned_once_and_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(self.stem(x)))

    model = Twice()
    pruner = OneShotPruner(model, (inputs(),), "simd_block", Density(0.25))
    pruner.harden()
    assert torch.count_nonzero(model.second.weight) == 0.25 * model.second.weight.numel()
    # torch.export calls both by the name of one of them.
    (row,) = (row for row in pruner.report() if row.name != "stem")
    assert row.density == 0.25
    assert row.name in ("first", "second")
    (layer,) = (layer for layer in pruner._plan.layers if layer.name == row.name)
    assert layer.macs == 2 * 8 * 8 * 9 * 6 * 6 * 2


@pytest.mark.parametrize(("patterns", "most"), [(4, 4), (6, 6), (8, 8), (12, 12), ("pconv", 4)])
def test_pattern_sets_are_learned_or_named(patterns, most):
    model, _ = pruned(patterns=patterns, epochs=1)
    found = set(np.unique(support_bits(model.shared.weight.detach().numpy())).tolist()) - {0}
    assert len(found) <= most
    if patterns == "pconv":
        assert found <= {sum(1 << (3 * r + c) for r, c in pattern) for pattern in PCONV_PATTERNS}


def test_patterns_keep_equally_many_kernels_in_each_filter():
    model, _ = pruned("pattern", Density(0.125))
    kernels = (model.block.weight.detach() != 0).any(dim=3).any(dim=2).sum(dim=1)
    assert kernels.max() - kernels.min() <= 1


def test_connectivity_is_a_constraint_of_its_own():
    pruner = ADMMPruner(mixed(), (inputs(),), "pattern", Density(0.125))
    pruner.penalty()
    goals = pruner.state_dict()["own"]["goals"]
    pattern, connected = (goal.numpy() for goal in goals["block"])
    # Before the first step the multipliers are what was cut off: goals are what is kept minus what is not.
    weight = pruner.model.block.weight.detach().numpy()
    kept = np.isclose(pattern, weight, atol=1e-6), np.isclose(connected, weight, atol=1e-6)
    assert kept[0].mean() == pytest.approx(4 / 9, abs=0.01), "patterns keep all kernels"
    assert set(kept[1].reshape(256, 9).sum(axis=1).tolist()) <= {0, 9}, "connectivity keeps whole kernels"
    assert kept[1].mean() == pytest.approx(0.125 * 9 / 4, abs=0.01)
    assert len(goals["depthwise"]) == 1


def test_n_of_m_keeps_n_of_each_m_input_channels():
    model, pruner = pruned("2:4")
    weight = model.pointwise.weight.detach().numpy().reshape(16, 8, 4)
    assert (np.count_nonzero(weight, axis=2) == 2).all()
    rows = {row.name: row for row in pruner.report()}
    assert rows["pointwise"].structure == "unstructured"
    assert rows["depthwise"].note == "left as it is: fewer than 4 input channels"


def test_layers_are_chosen_by_globs_and_have_densities_of_their_own():
    _, pruner = pruned(
        {"shared": "unstructured", "p*": "block_punched", "*": "simd_block"},
        Density(0.25),
        include=["*d*", "p*"],
        exclude=["hidden", "head"],
        densities={"grouped": 0.5},
    )
    found = {row.name: (row.structure, round(row.density, 3)) for row in pruner.report() if row.note != "not chosen"}
    assert found == {
        "grouped": ("simd_block", 0.5),
        "depthwise": ("dense", 1.0),
        "pointwise": ("block_punched", 0.25),
        "wide": ("simd_block", 0.25),
        "shared": ("unstructured", 0.25),
        "upwards": ("simd_block", 0.25),
    }


def test_auto_prices_what_layers_will_keep(monkeypatch):
    from pconvgen.pruning import auto

    asked, price = {}, auto.pruned_layer

    def recorded(task, structure, params, density, known):
        asked.setdefault(task.names[0], []).append(density)
        return price(task, structure, params, density, known)

    monkeypatch.setattr(auto, "pruned_layer", recorded)
    _, pruner = pruned("auto", kind="one_shot", epochs=0)
    densities = {row.name: row.density for row in pruner.report()}
    assert asked["depthwise"] == [pytest.approx(4 / 9)]
    assert asked["depthwise"] == [pytest.approx(densities["depthwise"])]
    assert asked["wide"] == [0.25, 0.25]


def test_auto_takes_a_structure_that_fits_the_kind_of_layer():
    _, pruner = pruned("auto", kind="one_shot", epochs=0)
    found = {row.name: row.structure for row in pruner.report()}
    assert found["depthwise"] == "pattern"
    assert found["block"] in ("pattern", "simd_block")
    assert found["pointwise"] in ("simd_block", "block_punched")


def test_a_budget_of_macs_is_kept():
    _, pruner = pruned("simd_block", Macs(600_000), kind="one_shot")
    spent = 0
    for layer in pruner._plan.layers:
        spent += layer.macs * float(np.count_nonzero(layer.weight()) / layer.weight().size)
    assert 580_000 < spent <= 602_000


def test_a_budget_of_bytes_is_kept_with_indices():
    _, pruner = pruned("pattern", Size(40_000), kind="one_shot")
    stored = 0.0
    for layer in pruner._plan.layers:
        found = candidates(np.ascontiguousarray(layer.weight()), layer.groups)
        one = smallest([c for c in found if c.structure in ("pattern", "simd_block", "dense")])
        stored += 4 * (one.stored * (1 + 1 / (one.taps * min(one.unit, 8))) if one.structure != "dense" else one.stored)
    assert 36_000 < stored <= 41_000


def test_reweighting_makes_small_units_smaller_and_leaves_large_ones():
    model = mixed()
    pruner = ReweightedPruner(model, (inputs(),), "block_punched", Density(0.25))
    before = pruner._units()["wide"].norms
    follow_the_penalty(model, pruner, 5, steps=20)
    ratio = pruner._units()["wide"].norms / before
    small, large = before < np.quantile(before, 0.2), before > np.quantile(before, 0.8)
    assert ratio[small].mean() < 0.8 * ratio[large].mean()


def test_iterative_pruning_is_fast_at_first_and_slow_at_the_end():
    model = mixed()
    logs = []
    pruner = IterativePruner(model, (inputs(),), "unstructured", Density(0.1), epochs=4, callbacks=[logs.append])
    train(model, pruner, 4)
    shares = [log.densities["block"] for log in logs]
    np.testing.assert_allclose(shares, [0.1 + 0.9 * (1 - i / 4) ** 3 for i in (1, 2, 3, 4)])
    assert float((model.block.weight != 0).float().mean()) == pytest.approx(0.1, abs=0.001)


def test_the_geometric_median_prunes_filters_that_others_replace():
    model = mixed()
    with torch.no_grad():
        model.block.weight.zero_()
        model.block.weight[:12, 0] = 1 + 0.01 * torch.randn(12, 3, 3)  # alike, and of the largest norm
        for index in range(12, 16):
            model.block.weight[index, index] = 0.9
    kept = {}
    for criterion in ("magnitude", "geometric_median"):
        other = copy.deepcopy(model)
        OneShotPruner(other, (inputs(),), "filter", Density(0.25), include=["block"], criterion=criterion).harden()
        kept[criterion] = set(torch.nonzero(other.block.weight.abs().sum((1, 2, 3))).flatten().tolist())
    assert kept["geometric_median"] == {12, 13, 14, 15}
    assert kept["magnitude"] <= set(range(12))


def test_log_has_scalars_and_a_line():
    scalars, lines = {}, []

    class Writer:
        def add_scalar(self, path, value, step):
            scalars[path, step] = value

    from pconvgen.pruning import tensorboard

    model = mixed()
    pruner = ADMMPruner(
        model,
        (inputs(),),
        "simd_block",
        Macs(600_000),
        callbacks=[tensorboard(Writer()), lambda log: lines.append(log)],
    )
    train(model, pruner, 2)
    assert scalars["pruning/rho", 0] == 0.01
    assert scalars["pruning/cost", 1] <= scalars["pruning/budget", 1] == 600_000
    assert 0 < scalars["pruning/density/block", 1] <= 1
    assert 0 <= scalars["pruning/distance/block", 1] <= 1
    assert str(lines[0]).startswith("epoch 0, rho 0.01, to be cut off ")
    assert "of 6e+05 multiply-accumulates" in str(lines[0])


@pytest.mark.parametrize(("kind", "kept"), [("admm", "_goals"), ("reweighted", "_factors")])
def test_what_a_pruner_keeps_follows_a_model_to_another_device(kind, kept):
    pruner = KINDS[kind](mixed(), (inputs(),), "pattern", Density(0.25))
    before, tensors = pruner.penalty(), getattr(pruner, kept)
    pruner._devices = [torch.device("meta")] * len(pruner._devices)  # where it was, as far as the pruner knows
    assert torch.equal(pruner.penalty(), before)
    assert getattr(pruner, kept) is not tensors, "moved to where the model is"
    moved = getattr(pruner, kept)
    pruner.penalty()
    assert getattr(pruner, kept) is moved, "once"


def test_layers_that_no_glob_names_stay_dense():
    model = mixed()
    before = copy.deepcopy(model.state_dict())
    pruner = OneShotPruner(model, (inputs(),), {"grouped": "simd_block"}, QUARTER)
    pruner.harden()
    rows = {row.name: row for row in pruner.report()}
    assert rows["grouped"].structure == "simd_block"
    for name, row in rows.items():
        if name != "grouped":
            assert (row.structure, row.density) == ("dense", 1.0), name
            assert torch.equal(model.get_parameter(f"{name}.weight"), before[f"{name}.weight"])
