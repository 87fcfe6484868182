"""What pruners refuse, and what a training that goes wrong leaves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pconvgen.errors import PconvgenError, UsageError
from pconvgen.pruning import ADMMPruner, Density, IterativePruner, Latency, Macs, OneShotPruner, Rho, Size
from tests.pruning.models import inputs, mixed, train


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_densities_out_of_range_are_refused(share):
    with pytest.raises(UsageError, match="density is out of range"):
        Density(share)
    with pytest.raises(UsageError, match="density is out of range"):
        OneShotPruner(mixed(), (inputs(),), "pattern", densities={"block": share})


@pytest.mark.parametrize("make", [Macs, Size, lambda ms: Latency("host", ms)])
def test_budgets_that_are_not_positive_are_refused(make):
    for value in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="is not positive"):
            make(value)


@pytest.mark.parametrize("structure", ["patern", "dense", "4:2", "0:4", {"*": "blocks"}])
def test_unknown_structures_are_refused(structure):
    with pytest.raises(UsageError, match="unknown structure"):
        OneShotPruner(mixed(), (inputs(),), structure)


def test_a_budget_below_the_floor_is_refused_with_the_floor():
    pruner = OneShotPruner(mixed(), (inputs(),), "simd_block", Macs(10_000))
    with pytest.raises(UsageError, match=r"found 1e\+04 multiply-accumulates, expected \d.* of them for what is not"):
        pruner.harden()


def test_a_model_without_a_layer_to_prune_is_refused():
    with pytest.raises(PconvgenError, match="there is nothing to prune"):
        OneShotPruner(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (inputs(),), "pattern")
    with pytest.raises(UsageError, match="there is nothing to prune"):
        OneShotPruner(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (inputs(),), "pattern")


def test_a_structure_that_fits_no_layer_says_why_for_each():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3, groups=3))
    with pytest.raises(UsageError, match=r"there is no layer to prune \(found 1: left as it is: simd_block does not"):
        OneShotPruner(model, (inputs(),), "simd_block")


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_globs_without_a_layer_are_refused(option):
    with pytest.raises(UsageError, match=r"no layer has such a name \(found convolution, expected one of stem, block"):
        OneShotPruner(mixed(), (inputs(),), "pattern", **{option: ["convolution"]})
    with pytest.raises(UsageError, match="no layer has such a name"):
        OneShotPruner(mixed(), (inputs(),), "pattern", densities={"convolution": 0.5})


def test_what_cannot_be_traced_is_told_as_such():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(PconvgenError, match=r"Branch: torch.export cannot trace this model"):
        OneShotPruner(Branch(), (inputs(),), "pattern")


def test_nan_loss_is_noticed_a_batch_later_and_the_last_good_state_is_kept():
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), "simd_block")
    optimizer = train(model, pruner, 1)
    good = {name: value.clone() for name, value in model.state_dict().items()}
    (model(inputs()).sum() * float("nan") + pruner.penalty()).backward()
    optimizer.step()
    pruner.penalty()  # of weights that are not finite; looked at with the next one
    with pytest.raises(PconvgenError, match="the model has its weights of after epoch 0 again"):
        pruner.penalty()
    for name, value in model.state_dict().items():
        assert torch.equal(value, good[name]), name


@pytest.mark.parametrize("where", ["step", "harden"])
def test_nan_weights_are_noticed_at_the_end_of_an_epoch(where):
    model = mixed()
    pruner = OneShotPruner(model, (inputs(),), "simd_block")
    with torch.no_grad():
        model.wide.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PconvgenError, match=r"Mixed: layer wide: .* not finite any more.* weights of before the first"):
        pruner.step(0) if where == "step" else pruner.harden()
    assert torch.isfinite(model.wide.weight).all()


def test_a_model_that_is_not_finite_from_the_start_is_refused():
    model = mixed()
    with torch.no_grad():
        model.block.weight[0] = float("inf")
    with pytest.raises(PconvgenError, match="layer block: the weights are not finite"):
        OneShotPruner(model, (inputs(),), "simd_block")


def test_a_model_that_is_changed_meanwhile_is_noticed():
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), "simd_block")
    model.block = nn.Conv2d(16, 16, 3, padding=1)
    for call in (pruner.penalty, pruner.harden, lambda: pruner.step(0)):
        with pytest.raises(PconvgenError, match="layer block: the model was changed since the pruner was made"):
            call()


def test_the_state_of_another_pruner_is_refused():
    state = OneShotPruner(mixed(), (inputs(),), "simd_block").state_dict()
    with pytest.raises(UsageError, match="the state is of another pruner: its kind differs"):
        ADMMPruner(mixed(), (inputs(),), "simd_block").load_state_dict(state)
    with pytest.raises(UsageError, match="the state is of another pruner: its layers differs"):
        OneShotPruner(mixed(), (inputs(),), "pattern").load_state_dict(state)


def test_a_model_that_is_not_pruned_is_not_exported(tmp_path):
    pruner = OneShotPruner(mixed(), (inputs(),), "pattern")
    with pytest.raises(UsageError, match="call harden"):
        pruner.export(tmp_path / "model.pt2")
    pruner.harden()
    with pytest.raises(UsageError, match="unknown model format"):
        pruner.export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_half_precision_weights_are_refused():
    with pytest.raises(PconvgenError, match="unsupported dtype"):
        OneShotPruner(mixed().half(), (inputs().half(),), "pattern")


def test_criteria_and_schedules_are_checked():
    with pytest.raises(UsageError, match="unknown criterion"):
        OneShotPruner(mixed(), (inputs(),), "filter", criterion="taylor")
    with pytest.raises(UsageError, match="the geometric median is one of filters"):
        OneShotPruner(mixed(), (inputs(),), "pattern", criterion="geometric_median")
    with pytest.raises(UsageError, match="no epoch to prune in"):
        IterativePruner(mixed(), (inputs(),), "pattern", epochs=0)
    with pytest.raises(UsageError, match="rho does not grow"):
        Rho(1.0, 0.5)
