"""What was pruned is what the compiler finds: on every layer, by the names and densities that the pruner reports."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pconvgen
from pconvgen.compiler import decide
from pconvgen.pruning import ADMMPruner, Density, Latency, OneShotPruner
from pconvgen.pruning.costs import device_of, measure_ms
from pconvgen.pruning.layers import exported
from pconvgen.pruning.pruner import CALIBRATIONS
from pconvgen.sparsity import candidates, smallest
from pconvgen.targets.presets import get_target
from tests.pruning.models import inputs, mixed, train
from tests.zoo import ZOO

pytestmark = pytest.mark.host

# Wide enough that layers have more than a handful of units: of few, what is left may fit a simpler structure.
NETWORKS = {name: ZOO[name] for name in ("vgg16_bn", "resnet18", "densenet")} | {
    "mobilenet_v2": replace(ZOO["mobilenet_v2"], options={"num_classes": 10})
}


def check_agreement(pruner, decisions):
    """`explain` has the rows of the report.

    Where all filters that read a channel lost it, the compiler removes the channel, too: such layers have fewer weights
    left than were pruned, and may be of a simpler structure.
    """
    wanted = {row.name: row for row in pruner.report()}
    assert {row.name for row in decisions} <= wanted.keys()
    kept = 0
    for row in decisions:
        asked = wanted[row.name]
        assert row.density <= asked.density + 1e-6, row.name
        if row.density >= asked.density - 1e-6:
            kept += 1
            assert row.structure == asked.structure, (row.name, row.structure)
    return kept


def found_in(pruner):
    """Layer -> the structure that the compiler sees in its weight by itself."""
    layers = [layer for layer in pruner._plan.layers if layer.op != "conv2d_transpose"]
    return {layer.name: smallest(candidates(np.array(layer.weight()), layer.groups)).structure for layer in layers}


@pytest.mark.parametrize("structure", ["pattern", "simd_block", "block_punched", "unstructured"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_structure_that_was_asked_for_is_found_in_every_layer(network, structure):
    entry = NETWORKS[network]
    pruner = OneShotPruner(entry.build(), (entry.example(),), structure, Density(0.2))
    pruner.harden()
    found = found_in(pruner)
    for row in pruner.report():
        assert found[row.name] == row.structure, (row.name, row.shape, row.note)


def test_explain_agrees_with_the_report_on_every_layer(tmp_path):
    entry = ZOO["resnet18"]
    pruner = OneShotPruner(entry.build(), (entry.example(),), "pattern", Density(0.2))
    pruner.harden()
    compiled = pconvgen.compile(pruner.export(tmp_path / "pruned.pt2"))
    assert check_agreement(pruner, compiled.decisions) == len(pruner.report())
    (expected,) = compiled.imported.reference(inputs := compiled.manifest.random_inputs(0)).values()
    (found,) = compiled.run(inputs).values()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("structure", ["pattern", "simd_block", "block_punched", "auto"])
def test_a_trained_model_of_all_kinds_of_layers_is_found_and_computed_rightly(structure, tmp_path):
    model = mixed()
    pruner = ADMMPruner(model, (inputs(),), structure, Density(0.25))
    optimizer = train(model, pruner, 2)
    pruner.harden()
    train(model, pruner, 1, optimizer=optimizer, first=2)
    found = found_in(pruner)
    for row in pruner.report():
        assert row.op == "conv2d_transpose" or found[row.name] == row.structure, row
    # A transposed convolution is another one for the compiler, in which patterns of 2x2 kernels are single weights.
    compiled = pconvgen.compile(pruner.export(tmp_path / "pruned.pt2"))
    check_agreement(pruner, [row for row in compiled.decisions if row.op != "conv2d_transpose"])
    (output,) = compiled.run(inputs().numpy()).values()
    model.eval()
    np.testing.assert_allclose(output, model(inputs()).detach().numpy(), atol=1e-4)


class Stack(nn.Module):
    """Some 3x3 convolutions that may be pruned."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96)
        self.convs = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in pairwise(widths))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x).mean((2, 3))


def left(weights):
    """How many weights of each layer are not zero."""
    return {name: int(torch.count_nonzero(weight)) for name, weight in weights.items() if weight.dim() > 1}


def counted_ms(program, *_):
    """A clock that no other process disturbs: the network's predicted cycles, a billion a second."""
    return 1e-6 * sum(row.predicted_cycles for row in decide(pconvgen.load_model(program), get_target("host")))


def test_a_measured_budget_is_met_by_measuring(monkeypatch):
    torch.manual_seed(0)
    model, example = Stack(), (torch.randn(1, 3, 28, 28),)
    dense, taken = counted_ms(exported(model, example)), []

    def recorded(program, *_):
        taken.append((left(program.state_dict), counted_ms(program)))
        return taken[-1][1]

    monkeypatch.setattr("pconvgen.pruning.pruner.measure_ms", recorded)
    monkeypatch.setattr("pconvgen.whatif.curve.MOST", 5)  # a second for each knot of a curve
    budget = Latency("host", 0.7 * dense)
    pruner = OneShotPruner(model, example, "simd_block", budget)
    pruner.harden()
    assert len(taken) > CALIBRATIONS, "the network was measured, before and when it was pruned"
    within = [row for row in taken[CALIBRATIONS:] if row[1] <= budget.ms]
    kept, found = max(within, key=lambda row: row[1])
    assert left(model.state_dict()) == kept
    assert found >= 0.8 * budget.ms
    assert {row.density for row in pruner.report() if row.structure == "simd_block"} != {1.0}


def test_a_network_is_measured_on_the_device_of_its_budget():
    budget = Latency("host", 1.0)
    device = device_of(budget)
    assert device is not None
    assert measure_ms(exported(Stack(), (torch.randn(1, 3, 28, 28),)), budget, device) > 0


def test_a_predicted_budget_needs_a_model_of_the_target():
    from pconvgen.errors import UsageError

    pruner = OneShotPruner(mixed(), (inputs(),), "simd_block", Latency("cortex-a76", 1.0))
    with pytest.raises(UsageError, match="nothing was learned of times on this target"):
        pruner.harden()
    pruner = OneShotPruner(mixed(), (inputs(),), "simd_block", Latency("cortex-a76", 1.0, device="emulated"))
    with pytest.raises(UsageError, match="there is no clock on that device"):
        pruner.harden()
