"""Small Relax modules that no front end made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from pconvgen.passes.lower import LowerLayers
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.relax import is_op, shape_of
from pconvgen.tvm_compat.rewriting import main_bindings

HOST = get_target("host")
NN = relax.op.nn
RNG = np.random.default_rng(0)


def weight(*shape: int, dtype: str = "float32") -> Any:
    return relax.const(RNG.standard_normal(shape).astype(dtype))


def conv(data: Any, filters: int = 4, kernel: int = 3, padding: int = 1, groups: int = 1, **options: Any) -> Any:
    channels = shape_of(data)[1] // groups
    return NN.conv2d(data, weight(filters, channels, kernel, kernel), padding=padding, groups=groups, **options)


def module_of(body: Callable[..., Any], *shape: int) -> Any:
    """A module whose "main" is one dataflow block; `body(emit, x)` returns an expression, or several."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape or (1, 3, 8, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            results = body(builder.emit, x)
            several = isinstance(results, tuple)
            outputs = [builder.emit_output(result) for result in (results if several else (results,))]
        builder.emit_func_output(outputs if several else outputs[0])
    return builder.finalize()


def calls(module: Any) -> Counter[str]:
    """How often "main" calls what: TIR functions by the template, operators by name."""
    found: Counter[str] = Counter()
    for binding in main_bindings(module):
        if is_op(binding.value, "relax.call_tir", "relax.call_tir_inplace"):
            found[binding.value.args[0].name_hint.rsplit("_", 1)[0]] += 1
        elif isinstance(binding.value, tvm.ir.Call):
            found[binding.value.op.name] += 1
    return found


def kernels(module: Any) -> int:
    return len(module.get_global_vars()) - 1


def lower(body: Callable[..., Any], *shape: int) -> Any:
    return LowerLayers(HOST)(module_of(body, *shape))


BIAS = weight(1, 4, 1, 1)
