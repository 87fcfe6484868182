"""Passes do not write values again wherever they are used: expressions would grow by powers of the uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import s_tir
from tvm_ffi import structural_walk

from pconvgen.schedules import ISAS
from pconvgen.schedules.default import rank
from pconvgen.sparsity import STRUCTURES, encode
from pconvgen.templates.instance import convolution
from pconvgen.templates.planes import Places, plain_layout
from pconvgen.workload import ConvWorkload, Epilogue
from tests.activations import ACTIVATIONS


def nodes(module: Any) -> int:
    """Expressions in all functions of a module."""
    found: list[Any] = []
    for function in module.functions.values():
        structural_walk(function, (tvm.ir.Expr, found.append))
    return len(found)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_stay_as_long_as_they_are(name: str) -> None:
    activation, _ = ACTIVATIONS[name]
    isa, w = ISAS["avx2"], ConvWorkload(1, 8, 14, 14, 16, (1, 1))
    w = replace(w, epilogue=Epilogue(activation=activation))
    weight = np.ones((16, 8, 1, 1), np.float32)
    (candidate,) = STRUCTURES["dense"].detect(weight)
    places = Places(plain_layout(8, 14, 14), plain_layout(16, 14, 14))
    best = rank(w, [candidate], isa, 1024, places)[0]
    encoding = encode(weight, candidate, w.groups, best.max_group)
    kernel = convolution(w, encoding, best.schedule, isa, places).kernel  # type: ignore[arg-type]
    before = tvm.IRModule({"main": kernel.build()})
    after = s_tir.transform.StmtSimplify()(before)
    # Some values that are used twice are written twice; sigmoid was 27 times as long.
    assert nodes(after) <= 2 * nodes(before)
