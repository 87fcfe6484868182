"""Networks with empty filters before and after the pass that removes dead channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor, nn
from tvm import relax

from pconvgen.frontend import Imported, load_model
from pconvgen.passes.shrink import RemoveDeadChannels
from pconvgen.tvm_compat.relax import is_op, shape_of
from pconvgen.tvm_compat.rewriting import layer_names, main_bindings, main_results

TOLERANCE = 1e-4
Shapes = dict[str, tuple[int, ...]]


def empty(
    layer: nn.Module, filters: list[int] | None = None, channels: list[int] | None = None, bias: Any = None
) -> None:
    """Prunes whole filters (their bias becomes `bias`, or stays) and whole input channels."""
    with torch.no_grad():
        layer.weight[filters or []] = 0
        layer.weight[:, channels or []] = 0
        if filters and bias is not None:
            layer.bias[filters] = bias


def imported_from(model: nn.Module, x: Tensor) -> Imported:
    return load_model(model.eval(), example=(x,))


def run_plainly(module: Any, x: Tensor) -> list[np.ndarray]:
    """The results of a module that TVM alone compiles, without optimising: quick to build, and independent of ours."""
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    executable = tvm.compile(relax.get_pipeline("zero")(module), target=target)
    result = relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy()))
    return [result.numpy()] if hasattr(result, "numpy") else [part.numpy() for part in result]


def assert_equal(results: Iterable[np.ndarray], model: nn.Module, x: Tensor) -> None:
    """Raises unless `results` are what `model` computes in PyTorch."""
    with torch.no_grad():
        outputs = model.eval()(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for result, output in zip(results, outputs, strict=True):
        assert np.abs(result - output.numpy()).max() <= TOLERANCE * max(1.0, float(output.abs().max()))


def shapes(module: Any) -> Shapes:
    """The weights' shapes by the layers' names."""
    names = layer_names(module)
    layers = [b for b in main_bindings(module) if is_op(b.value, "relax.nn.conv2d", "relax.matmul")]
    return {names[b.var.name]: shape_of(b.value.args[1]) for b in layers}


def shrunk(model: nn.Module, x: Tensor) -> Shapes:
    """The shapes that the pass changed; the results must be PyTorch's."""
    imported = imported_from(model, x)
    module = RemoveDeadChannels()(imported.module)
    for before, after in zip(main_results(imported.module), main_results(module), strict=True):
        assert shape_of(before) == shape_of(after)
    assert RemoveDeadChannels()(module).same_as(module), "one run must find everything"
    found, original = shapes(module), shapes(imported.module)
    assert list(found) == list(original)
    if not module.same_as(imported.module):
        assert_equal(run_plainly(module, x), model, x)
    return {name: shape for name, shape in found.items() if shape != original[name]}
