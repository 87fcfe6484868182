"""Weights of PyTorch that are computed when they are read, or kept in formats for sparse tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import pconvgen
from pconvgen.errors import PconvgenError
from pconvgen.sparsify import sparsify
from pconvgen.verify import verify

pytestmark = pytest.mark.host

SHAPE = (2, 3, 8, 8)


class Masked(nn.Module):
    """A parametrisation that keeps three of ten elements."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * (torch.arange(weight.numel()).reshape(weight.shape) % 10 < 3)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 6)).eval()


def pruned(layer: nn.Module, name: str = "weight") -> None:
    prune.l1_unstructured(layer, name, 0.7)


def stored(layer: nn.Linear, convert: Callable[[torch.Tensor], torch.Tensor]) -> None:
    layer.weight = nn.Parameter(convert(Masked()(layer.weight.detach())), requires_grad=False)


# What is done to a model, and the layer that has zeros then.
WEIGHTS: dict[str, tuple[Callable[[nn.Sequential], object], str | None]] = {
    "weight norm by hooks": (lambda m: [weight_norm(m[0]), weight_norm(m[4], dim=1)], None),
    "weight norm": (lambda m: [parametrizations.weight_norm(m[i]) for i in (2, 4)], None),
    "spectral norm by hooks": (lambda m: [spectral_norm(m[2])], None),
    "spectral norm": (lambda m: [parametrizations.spectral_norm(m[i]) for i in (2, 4)], None),
    "orthogonal": (lambda m: parametrizations.orthogonal(m[4]), None),
    "householder": (lambda m: parametrizations.orthogonal(m[4], orthogonal_map="householder"), None),
    "pruned beside weight norm": (lambda m: [pruned(m[2]), parametrizations.weight_norm(m[4])], "2"),
    "pruned directions of weight norm": (lambda m: [weight_norm(m[2]), pruned(m[2], "weight_v")], "2"),
    "masked behind weight norm": (
        lambda m: [parametrizations.weight_norm(m[2]), parametrize.register_parametrization(m[2], "weight", Masked())],
        "2",
    ),
    "masked behind spectral norm": (
        lambda m: [
            parametrizations.spectral_norm(m[4]),
            parametrize.register_parametrization(m[4], "weight", Masked()),
        ],
        "4",
    ),
    "compressed rows": (lambda m: stored(m[4], torch.Tensor.to_sparse_csr), "4"),
    "compressed columns": (lambda m: stored(m[4], torch.Tensor.to_sparse_csc), "4"),
    "compressed blocks": (lambda m: stored(m[4], lambda weight: weight.to_sparse_bsr((2, 2))), "4"),
    "coordinates": (lambda m: stored(m[4], torch.Tensor.to_sparse), "4"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_folded_under_the_name_of_their_layer(name: str) -> None:
    change, sparse = WEIGHTS[name]
    network = model()
    change(network)
    before = [type(parameter.data) for parameter in network.parameters()]
    compiled = pconvgen.compile(network, example=(torch.randn(SHAPE),))
    assert [decision.name for decision in compiled.decisions] == ["0", "2", "4"]
    assert [decision.name for decision in compiled.decisions if decision.density < 0.5] == ([sparse] if sparse else [])
    assert verify(compiled, seeds=(0,)).passed
    assert [type(parameter.data) for parameter in network.parameters()] == before


def test_parametrised_files_are_folded(tmp_path: Path) -> None:
    network = model()
    parametrizations.weight_norm(network[2])
    pruned(network[4])
    torch.export.save(torch.export.export(network, (torch.randn(SHAPE),)), tmp_path / "m.pt2")
    compiled = pconvgen.compile(tmp_path / "m.pt2")
    assert [decision.density < 0.5 for decision in compiled.decisions] == [False, False, True]
    assert verify(compiled, seeds=(0,)).passed


def test_sparse_tensors_are_not_pruned_anew() -> None:
    network = model()
    stored(network[4], torch.Tensor.to_sparse_csr)
    with pytest.raises(PconvgenError, match=r"layer 4: the weight is kept in a format for sparse .*to_dense"):
        sparsify(network, "unstructured", 0.5, layers="*")


class Bilinear(nn.Module):
    """With and without bias, of vectors and of images of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Bilinear(5, 6, 4), nn.Bilinear(5, 6, 3, bias=False)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.one(left, right), self.two(left[0], right[0])


def test_bilinear_layers() -> None:
    assert verify(pconvgen.compile(Bilinear().eval(), example=(torch.randn(2, 3, 5), torch.randn(2, 3, 6)))).passed
