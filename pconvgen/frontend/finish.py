"""The last steps of every import: fold, check, describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from tvm import relax

from pconvgen.errors import PconvgenError
from pconvgen.frontend.canonicalize import CanonicalizeOperators
from pconvgen.frontend.empty import RemoveEmptyTensors
from pconvgen.frontend.ends import SAME_TYPES, Types, tell, with_types
from pconvgen.frontend.fold_constants import FoldWeightConstants
from pconvgen.frontend.origins import Origins
from pconvgen.frontend.spec import Imported, Judge, TensorSpec, check_finite
from pconvgen.passes.fold_batchnorm import FoldBatchNorm
from pconvgen.tvm_compat.passes import run_passes
from pconvgen.tvm_compat.relax import Expr, Module, constant_value, dtype_of, is_op, shape_of
from pconvgen.tvm_compat.rewriting import LAYERS, layer_names, main_bindings, main_results

T = TypeVar("T")

_WEIGHTED = (
    *(f"relax.nn.conv{rank}d{suffix}" for rank in (1, 2, 3) for suffix in ("", "_transpose")),
    "relax.matmul",
)

_NUMBERS = (
    "float32",
    "float64",
    "float16",
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


def finish(
    module: Module,
    inputs: Sequence[str],
    outputs: Sequence[str],
    layers: Mapping[str, str],
    judge: Judge,
    source: str,
    types: Types = SAME_TYPES,
    origins: Origins | None = None,
) -> Imported:
    """Fold constants and batch norm of an imported module and describe its inputs and outputs.

    `layers` maps names of variables to layers; those that are not in the module any more are dropped.
    Raises PconvgenError when "main" is not one dataflow block, an output's shape is not static, or the weight of a
    convolution or linear layer is not finite. All other constants may be infinite, as in masks and padding.
    """
    if main_bindings(module) is None:
        raise control_flow(source)
    layers, origins = _follow_outputs(module, layers), Origins(_follow_outputs(module, origins or {}))
    module["main"] = module["main"].with_attr(LAYERS, layers)
    module = run_passes(module, relax.transform.CanonicalizeBindings(), RemoveEmptyTensors(), FoldWeightConstants())
    _check_variances(module, source)
    module = run_passes(module, FoldBatchNorm(), CanonicalizeOperators())
    _check_weights(module, source)
    present = {binding.var.name for binding in main_bindings(module) or []}
    names = {variable: layer for variable, layer in layers.items() if variable in present}
    module["main"] = module["main"].with_attr(LAYERS, names)
    ends = [[types.inputs.get(name) for name in inputs], [types.outputs.get(name) for name in outputs]]
    module = with_types(module, *ends)
    tell(types, source)
    return Imported(
        module=module,
        inputs=tuple(_spec(name, var, source) for name, var in zip(inputs, module["main"].params, strict=True)),
        outputs=tuple(_spec(name, var, source) for name, var in zip(outputs, main_results(module), strict=True)),
        layer_names=names,
        judge=judge,
        source=source,
        arithmetic=types.arithmetic,
        quantised=types.quantised,
        origins=origins,
    )


def control_flow(source: str) -> PconvgenError:
    """The error for a model that is not a straight line of operators."""
    return PconvgenError(
        "the model has control flow",
        file=source,
        expected="a straight line of operators",
        remedy="export the model without conditions on data, loops and assertions",
    )


def _follow_outputs(module: Module, known: Mapping[str, T]) -> dict[str, T]:
    """`known` of variables, by the names that CanonicalizeBindings leaves: of `gv = conv1` it is the output's."""
    renamed = {
        binding.value.name: binding.var.name
        for binding in main_bindings(module) or []
        if isinstance(binding.value, relax.Var) and not isinstance(binding.var, relax.DataflowVar)
    }
    return {renamed.get(variable, variable): value for variable, value in known.items()}


def _check_variances(module: Module, source: str) -> None:
    """Raise where a batch norm would take the root of a negative number."""
    layer = "the input"
    names = layer_names(module)
    for binding in main_bindings(module) or []:
        layer = names.get(binding.var.name, layer)
        if is_op(binding.value, "relax.nn.batch_norm"):
            variance = constant_value(binding.value.args[4])
            if variance is not None and not (variance + binding.value.attrs.epsilon > 0).all():
                raise PconvgenError(
                    "the batch norm behind this layer has a negative running variance",
                    file=source,
                    layer=layer,
                    found=float(variance.min()),
                    expected="at least 0",
                    remedy="check the training run that wrote this model",
                )


def _check_weights(module: Module, source: str) -> None:
    names = layer_names(module)
    for binding in main_bindings(module) or []:
        if is_op(binding.value, *_WEIGHTED):
            weight = constant_value(binding.value.args[1])
            if weight is not None:
                check_finite(names.get(binding.var.name, binding.var.name), "weight", weight, source)


def _spec(name: str, expr: Expr, source: str) -> TensorSpec:
    shape = shape_of(expr)
    if shape is None:
        raise PconvgenError(
            f"the shape of {name} depends on the data",
            file=source,
            found=str(expr.ty),
            expected="a static shape",
            remedy="export the model with static shapes",
        )
    if dtype_of(expr) not in _NUMBERS:
        raise PconvgenError(
            f"{name} is of a type that programs do not have",
            file=source,
            found=dtype_of(expr),
            expected="one of " + ", ".join(_NUMBERS),
            remedy="convert it in the model, e.g. to float32 or int8",
        )
    return TensorSpec(name, shape, dtype_of(expr))
