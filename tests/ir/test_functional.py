"""Programs lose their in-place operators by a look at the graph, or by PyTorch where others see what they write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pconvgen.frontend.torch import functional as rewriting
from pconvgen.frontend.torch.exporting import export
from pconvgen.frontend.torch.functional import functional, retraced
from tests.zoo import ZOO

Function = Callable[[Tensor], object]


class Of(nn.Module):
    """A function behind a convolution."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.conv, self.norm, self.function = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), function

    def forward(self, x: Tensor) -> object:
        return self.function(self.norm(self.conv(x)))


def read_before(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * x.relu_()


def returned(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x.relu_()


def behind_a_view(x: Tensor) -> Tensor:
    flat = x.view(1, -1)
    x.relu_()
    return flat


def of_a_view(x: Tensor) -> Tensor:
    x.transpose(2, 3).relu_()
    return x + 1


def of_a_part(x: Tensor) -> Tensor:
    first, _ = x.split(2, dim=1)
    first.relu_()
    return x + 1


def of_what_dropout_returns(x: Tensor) -> Tensor:
    F.dropout(x, 0.5, training=False).relu_()
    return x + 1


def of_what_is_contiguous(x: Tensor) -> Tensor:
    x.contiguous().relu_()
    return x + 1


def behind_dropout(x: Tensor) -> Tensor:
    same = F.dropout(x, 0.5, training=False)
    x.relu_()
    return same


def of_other_types(x: Tensor) -> Tensor:
    return x.half().add_(x)


PLAIN: dict[str, Function] = {
    "relu": torch.relu_,
    "in a row": lambda x: F.hardtanh(x.relu_(), 0, 6, inplace=True).add_(1).mul_(x.new_ones(4, 1, 1)),
    "read before": read_before,
    "read after": lambda x: torch.relu_(x) + torch.sigmoid(x),
    "returned": returned,
    "contiguous": of_what_is_contiguous,
    "flatten": lambda x: F.dropout(torch.flatten(x, 1), 0.5, training=False),
    "of strides": lambda x: x.transpose(1, 2).reshape(4, -1) + x.transpose(2, 3).contiguous().view(4, -1),
    "parts": lambda x: torch.cat([part + 1 for part in x.chunk(3, dim=1)], dim=1),
}
RETRACED: dict[str, Function] = {
    each.__name__: each
    for each in (
        behind_a_view,
        behind_dropout,
        of_a_view,
        of_a_part,
        of_what_dropout_returns,
        of_other_types,
    )
}


def program_of(model: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    return export(model.eval(), (image,), {}, "a test")


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", [*PLAIN, *RETRACED])
def test_results_are_those_of_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, image = Of((PLAIN | RETRACED)[name]).eval(), torch.randn(1, 4, 6, 6)
    program = program_of(model, image)
    before = operators(program)
    again = []
    monkeypatch.setattr(rewriting, "retraced", lambda *given: again.append(given) or retraced(*given))
    made = functional(program)
    assert bool(again) == (name in RETRACED)
    assert operators(program) == before
    assert not any(
        getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in made.graph.nodes
    )
    with torch.no_grad():
        found, expected = made.module()(image), model(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3", "shufflenet", "unet"])
def test_networks_are_what_pytorch_makes_of_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(ZOO[name].build(), ZOO[name].example())
    traced = retraced(program, {})
    monkeypatch.delattr(rewriting, "retraced")
    made = functional(program)
    copies = {"aten.clone.default"}  # of what dropout returns
    assert [each for each in operators(made) if each not in copies] == [
        each for each in operators(traced) if each not in copies
    ]
    assert made.graph_signature == traced.graph_signature
