"""Kernels are no longer than they need be: not by values that passes write again, nor by the size of the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import s_tir
from tvm.tirx import PrimFunc
from tvm_ffi import structural_walk

from pconvgen.compiler import lower
from pconvgen.frontend import load_model
from pconvgen.planning.search import rank
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES, encode
from pconvgen.targets.presets import get_target
from pconvgen.templates.family import instantiate
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.workload import ConvWorkload, Epilogue
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
    core, w = replace(CORES["avx2"], l2_kib=1024), ConvWorkload(1, 8, 14, 14, 16, (1, 1))
    w = replace(w, epilogue=Epilogue(activation=activation))
    weight = np.ones((16, 8, 1, 1), np.float32)
    (candidate,) = STRUCTURES["dense"].detect(weight)
    places = Places(plain_layout(8, 14, 14), plain_layout(16, 14, 14))
    best = rank(w, [candidate], core, places)[0]
    encoding = encode(weight, candidate, w.groups, best.max_group)
    kernel = instantiate(w, encoding, best.schedule, core.isa, places).kernel
    before = tvm.IRModule({"main": kernel.build()})
    after = s_tir.transform.StmtSimplify()(before)
    # Some values that are used twice are written twice; sigmoid was 27 times as long.
    assert nodes(after) <= 2 * nodes(before)


@pytest.mark.parametrize(("height", "width"), [(3, 4000), (4000, 3), (40, 4000)])
def test_code_does_not_grow_with_the_image(height: int, width: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.Conv2d(16, 8, 1),
        nn.Upsample(scale_factor=2),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
    )
    target = get_target("cortex-a76")

    def length(*size: int) -> int:
        imported = load_model(model.eval(), example=(torch.zeros(1, 3, *size),))
        module, decisions = lower(imported, target)
        assert min(size) < 10 or any("winograd" in decision.choice for decision in decisions)
        return nodes(tvm.IRModule({v: f for v, f in module.functions.items() if isinstance(f, PrimFunc)}))

    assert length(height, width) <= 1.5 * max(length(min(height, 600), min(width, 600)), length(60, 60))
