"""Networks of the zoo, pruned, as the compiler takes them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from pconvgen.frontend import Imported, load_model
from pconvgen.model import CompiledModel
from pconvgen.sparsify import sparsify
from pconvgen.sparsity import SPARSE
from tests.zoo import ZOO

TOLERANCE = 1e-4
"""Largest error relative to the largest output that is promised."""

DENSITY = 0.25

STRUCTURES = (None, *SPARSE)


def cases(shift: int) -> list[Any]:
    """Parameters (network, structure): each network and each structure in turn; with --long all pairs.

    A back end's tests start `shift` structures further on, so that together they have more pairs.
    """
    found = []
    for at, name in enumerate(ZOO):
        for number, structure in enumerate(STRUCTURES):
            marks = () if number == (at + shift) % len(STRUCTURES) else pytest.mark.long
            found.append(pytest.param(name, structure, marks=marks))
    return found


@lru_cache(maxsize=1)
def imported(name: str, structure: str | None) -> Imported:
    """The small network of that name, its layers pruned to 25 % of a structure, or left dense."""
    entry = ZOO[name]
    model = entry.build()
    if structure is not None:
        sparsify(model, structure, DENSITY)
    return load_model(model, example=(entry.example(),))


def relative_error(compiled: CompiledModel, seed: int = 0) -> float:
    """Largest error of any output, relative to its largest value in the model's own framework."""
    inputs = compiled.manifest.random_inputs(seed)
    expected = compiled.imported.reference(inputs)
    found = compiled.run(inputs)
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[k] - expected[k]).max() / np.abs(expected[k]).max()) for k in expected)
