"""NaN and infinities in, NaN and infinities out, where PyTorch has them and nowhere else."""

from __future__ import annotations

import pytest
import torch

import pconvgen
from tests.not_a_number import OPERATORS, Functions, Layers, difference, images, table

pytestmark = pytest.mark.host


def test_every_operator_hands_nan_on() -> None:
    x = table()
    found = pconvgen.compile(Functions(list(OPERATORS.values())), example=(x,)).run(x.numpy())
    wrong = {
        name: difference(ours, function(x))
        for (name, function), ours in zip(OPERATORS.items(), found.values(), strict=True)
    }
    assert not {name: what for name, what in wrong.items() if what}


def test_layers_hand_nan_on_to_the_windows_that_hold_it() -> None:
    torch.manual_seed(0)
    model, x = Layers().eval(), images()
    found = pconvgen.compile(model, example=(x,), exact_nan=True).run(x.numpy())
    wrong = {name: difference(found[name], theirs) for name, theirs in model(x).items()}
    assert not {name: what for name, what in wrong.items() if what}
