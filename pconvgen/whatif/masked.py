"""Zeros in a model that was read already, so that looking at another density takes no file and no import.

before: lv1 = conv2d(x, weight); lv2 = add(lv1, bias)
after:  lv1 = conv2d(x, weight where it is kept, else 0); lv2 = add(lv1, bias)

Batch norm that was folded into a weight multiplies it, which leaves zeros where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.frontend import Imported
from pconvgen.sparsity.structure import swap_channels
from pconvgen.tvm_compat.relax import constant, constant_value, is_op, with_args
from pconvgen.tvm_compat.rewriting import Emit, main_bindings, rewrite_main

Kept = NDArray[np.bool_]
"""bool [filters, channels / groups, height, width], as a WeightedLayer has its weight."""


def masked(imported: Imported, layers: Sequence[tuple[str, Kept]]) -> Imported | None:
    """A model with zeros in the weights of some layers; None where one of them is not there as it was in the file.

    Parameters
    ----------
    layers: the name of each layer, and which of its weights stay; a weight that is used twice is of two.
    """
    kept = dict(layers)
    names = {variable: layer for variable, layer in imported.layer_names.items() if layer in kept}
    weights = {}
    for binding in main_bindings(imported.module) or []:
        if binding.var.name in names:
            weight = _masked(binding.value, kept[names[binding.var.name]])
            if weight is None:
                return None
            weights[binding.var.name] = weight
    # The second use of a weight may have a name of its own in the file.
    if len(weights) != len(layers):
        return None

    def rule(var: Any, value: Any, _: Emit) -> Any:
        weight = weights.get(var.name)
        return value if weight is None else with_args(value, [value.args[0], constant(weight)])

    return replace(imported, module=rewrite_main(imported.module, rule))


def _masked(value: Any, kept: Kept) -> NDArray[np.float32] | None:
    """The constant weight of an operator with its zeros; None where there is none that fits."""
    if is_op(value, "relax.nn.conv2d"):
        mask = kept
    elif is_op(value, "relax.nn.conv2d_transpose"):
        mask = swap_channels(kept.astype(np.float32), int(value.attrs.groups)) != 0
    elif is_op(value, "relax.matmul"):
        mask = kept[:, :, 0, 0].T
    else:
        return None
    weight = constant_value(value.args[1])
    if weight is None or weight.shape != mask.shape or weight.dtype != np.float32:
        return None
    return np.where(mask, weight, np.float32(0))
