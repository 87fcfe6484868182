"""The types that a model has, where these are not those that it is computed in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from pconvgen.errors import PconvgenWarning
from pconvgen.frontend.spec import DTYPE
from pconvgen.tvm_compat.relax import Expr, Module, Var, dtype_of
from pconvgen.tvm_compat.rewriting import eliminate_dead_code, main_bindings, main_results, substitute, with_functions


@dataclass(frozen=True)
class Types:
    """What a model has in other types than it is computed in.

    Attributes
    ----------
    inputs, outputs: name -> type, of those that are to have another one than in the imported module.
    floats: formats in the model that are computed in float32.
    quantised: layers whose weights are quantised.
    integers: whether the model quantises anything.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    floats: frozenset[str] = frozenset()
    quantised: frozenset[str] = frozenset()
    integers: bool = False

    @property
    def arithmetic(self) -> str:
        """The coarsest format that the model itself computes in."""
        if self.integers:
            return "int8"
        return next((name for name in ("bfloat16", "float16") if name in self.floats), DTYPE)


SAME_TYPES = Types()
"""Those of a model in float32."""


def tell(types: Types, source: str) -> None:
    """Warns where a model is computed in float32 although it is in other formats."""
    others = sorted(types.floats - {DTYPE})
    if others:
        warnings.warn(f"{source}: {' and '.join(others)} in the model, computed in float32", PconvgenWarning, 5)
    if types.integers:
        layers = sorted(types.quantised)
        which = f"layers {', '.join(layers)}" if layers else "the model"
        warnings.warn(
            f"{source}: {which} in integers, computed in float32 with dequantised weights", PconvgenWarning, 5
        )


def with_types(module: Module, inputs: Sequence[str | None], outputs: Sequence[str | None]) -> Module:
    """A "main" whose parameters and results have these types; None leaves one as it is.

    before: main(x: float32) { y = relu(x) }
    after:  main(x: float16) { x1 = astype(x, float32); y1 = relu(x1); y = astype(y1, float16) }
    """
    function, results, block = module["main"], main_results(module), main_bindings(module)
    wrong = [wanted not in (None, dtype_of(old)) for old, wanted in zip(function.params, inputs, strict=True)]
    late = [wanted not in (None, dtype_of(old)) for old, wanted in zip(results, outputs, strict=True)]
    if block is None or not any(wrong + late):
        return module
    builder = relax.BlockBuilder()
    replaced: dict[Var, Expr] = {}
    params, bindings = [], []

    def bind(var: Var, value: Expr) -> Any:
        bindings.append(relax.VarBinding(var, value))
        return var

    def emit(value: Expr, name: str, kind: Any) -> Var:
        value = builder.normalize(value)
        return bind(kind(name, value.ty), value)

    for param, wanted, differs in zip(function.params, inputs, wrong, strict=True):
        if differs:
            params.append(relax.Var(param.name, relax.TensorType(param.ty.shape, wanted)))
            name = f"{param.name}_{dtype_of(param)}"
            replaced[param] = emit(relax.op.astype(params[-1], dtype_of(param)), name, relax.DataflowVar)
        else:
            params.append(param)
    for binding in block:
        bind(binding.var, builder.normalize(substitute(binding.value, replaced)))
    given = []
    for result, wanted, differs in zip(results, outputs, late, strict=True):
        result = replaced.get(result, result)
        if differs:
            result = emit(relax.op.astype(result, str(wanted)), f"{wanted}_result", relax.Var)
        elif isinstance(result, relax.DataflowVar):
            result = emit(result, f"{result.name}_result", relax.Var)
        given.append(result)
    single = isinstance(function.ret_ty, relax.TensorType)
    body = builder.normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], given[0] if single else relax.Tuple(given)))
    rebuilt = relax.Function(params, body, body.ty, function.is_pure, function.attrs)
    return eliminate_dead_code(with_functions(module, {"main": rebuilt}))
