"""Pruners in the loops that people have: DistributedDataParallel, torch.compile, distillation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pconvgen.pruning import Density, Distillation, OneShotPruner
from pconvgen.pruning.ranks import on_first_rank
from tests.pruning.models import inputs, mixed

WORKER = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from pconvgen.whatif.curve import LatencyCurve
from pconvgen.pruning import ADMMPruner, Density, Latency, costs
from pconvgen.pruning import pruner as pruner_module
from pconvgen.pruning.allocation import NetworkCosts
from tests.pruning.models import inputs, mixed, train

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
# What is measured differs, and whoever measures more than once finds something else.
noise = iter([2.0, 1.8, 2.2, 1.9, 2.1, 1.7, 2.3, 2.0, 1.9, 2.2, 2.1, 2.0])
pruner_module.device_of = lambda budget: "a device"
pruner_module.measure_ms = lambda program, budget, device: next(noise) + 3 * rank


def curves(budget, constraints, program, report):
    assert rank == 0, "one rank measures for all"
    found = {c.name: LatencyCurve((0.05, c.units().share), (0.01, 1.0)) for c in constraints}
    return NetworkCosts(budget.ms, "ms", 0.0, found)


costs._latency_costs = curves
model = mixed()
wrapped = DistributedDataParallel(model)
budget = Density(0.25) if sys.argv[3] == "density" else Latency("host", 2.0)
pruner = ADMMPruner(wrapped, (inputs(),), "pattern", budget)
# Each rank has batches of its own.
optimizer = train(wrapped, pruner, 2, first=10 * rank)
pruner.harden()
train(wrapped, pruner, 1, optimizer=optimizer, first=10 * rank + 2)
torch.save(model.state_dict(), f"{folder}/rank{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("budget", ["density", "milliseconds"])
def test_all_ranks_prune_alike(budget, tmp_path):
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path), budget], cwd=root, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-2000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    weights = {name for name, _ in mixed().named_parameters()}
    for name in weights:  # statistics of batch norm are each rank's own
        assert torch.equal(first[name], second[name]), name
    assert (first["block.weight"] == 0).float().mean() > 0.6


def test_what_fails_on_the_first_rank_fails_on_all(monkeypatch):
    class Group:
        """A second rank, which gets what the first one sends."""

        is_available = is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)
        get_rank = staticmethod(lambda: Group.rank)
        rank, sent = 0, []

        @staticmethod
        def broadcast_object_list(box, src):
            if Group.rank == src:
                Group.sent[:] = box
            box[:] = Group.sent

    monkeypatch.setattr("pconvgen.pruning.ranks.distributed", Group)
    for Group.rank in (0, 1):
        with pytest.raises(ZeroDivisionError):
            on_first_rank(lambda: 1 / (0 if Group.rank == 0 else 1))
    for Group.rank in (0, 1):
        assert on_first_rank(lambda: Group.rank) == 0


def test_what_torch_compile_wraps_is_pruned():
    model = mixed()
    pruner = OneShotPruner(torch.compile(model), (inputs(),), "simd_block", Density(0.25))
    pruner.harden()
    assert pruner.model is model
    assert (model.block.weight == 0).float().mean() > 0.7


def test_making_a_pruner_and_pruning_change_neither_modes_nor_statistics():
    model = mixed().train()
    model.norm.eval()
    statistics = model.norm.running_mean.clone()
    pruner = OneShotPruner(model, (inputs(),), "simd_block", Density(0.25))
    pruner.harden()
    assert model.training
    assert model.block.training
    assert not model.norm.training
    assert torch.equal(model.norm.running_mean, statistics)


def test_the_student_learns_what_the_teacher_says():
    torch.manual_seed(0)
    model = mixed()
    distillation = Distillation(model)
    names = [name for name, _ in model.named_parameters()]
    x = inputs(8)
    model.eval()
    assert distillation(model(x), x) < 1e-6, "the teacher is a copy of the model, in evaluation mode"
    OneShotPruner(model, (inputs(),), "unstructured", Density(0.3)).harden()
    first = distillation(model(x), x).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(30):
        distillation(model(x), x).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert distillation(model(x), x).item() < 0.3 * first
    assert [name for name, _ in model.named_parameters()] == names, "the teacher is no part of the model"


def test_temperature_softens_and_gradients_keep_their_size():
    logits = torch.tensor([[2.0, 0.0, -2.0]], requires_grad=True)
    sizes = []
    for temperature in (1.0, 8.0):
        distillation = Distillation(torch.nn.Identity(), temperature)
        (gradient,) = torch.autograd.grad(distillation(logits, torch.tensor([[1.0, 0.5, 0.0]])), logits)
        sizes.append(float(gradient.norm()))
    assert 0.3 < sizes[1] / sizes[0] < 3
    assert functional.softmax(logits / 8, 1).max() < 0.5
