"""The last steps of every import: fold, check, describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm

from pconvgen.errors import PconvgenError
from pconvgen.frontend.canonicalize import CanonicalizeOperators
from pconvgen.frontend.fold_constants import FoldWeightConstants
from pconvgen.frontend.spec import Imported, Tensors, TensorSpec
from pconvgen.passes.fold_batchnorm import FoldBatchNorm
from pconvgen.tvm_compat import LAYERS, dtype_of, main_bindings, main_results, shape_of


def finish(
    module: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    layers: Mapping[str, str],
    reference: Callable[[Tensors], Tensors],
    source: str,
) -> Imported:
    """Fold constants and batch norm of an imported module and describe its inputs and outputs.

    `layers` maps names of variables to layers; those that are not in the module any more are dropped.
    Raises PconvgenError when "main" is not one dataflow block or an output's shape is not static.
    """
    if main_bindings(module) is None:
        raise PconvgenError(
            "the model has control flow",
            file=source,
            expected="a straight line of operators",
            remedy="export the model without conditions on data, loops and assertions",
        )
    module["main"] = module["main"].with_attr(LAYERS, dict(layers))
    try:
        module = tvm.transform.Sequential(
            [
                tvm.relax.transform.CanonicalizeBindings(),
                FoldWeightConstants(),
                FoldBatchNorm(),
                CanonicalizeOperators(),
            ]
        )(module)
    except PconvgenError as error:
        error.file = source
        raise
    present = {binding.var.name for binding in main_bindings(module) or []}
    names = {variable: layer for variable, layer in layers.items() if variable in present}
    module["main"] = module["main"].with_attr(LAYERS, names)
    return Imported(
        module=module,
        inputs=tuple(_spec(name, var, source) for name, var in zip(inputs, module["main"].params, strict=True)),
        outputs=tuple(_spec(name, var, source) for name, var in zip(outputs, main_results(module), strict=True)),
        layer_names=names,
        reference=reference,
        source=source,
    )


def _spec(name: str, expr: Any, source: str) -> TensorSpec:
    shape = shape_of(expr)
    if shape is None:
        raise PconvgenError(
            f"the shape of {name} depends on the data",
            file=source,
            found=str(expr.ty),
            expected="a static shape",
            remedy="export the model with static shapes",
        )
    return TensorSpec(name, shape, dtype_of(expr))
