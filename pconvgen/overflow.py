"""Where the activations of a model leave the range of float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.compiler import compile
from pconvgen.frontend import Imported
from pconvgen.frontend.spec import TensorSpec
from pconvgen.matching.fused_ops import find_fused_ops
from pconvgen.tvm_compat.relax import shape_of
from pconvgen.tvm_compat.rewriting import layer_names, returning
from pconvgen.values.dtype import DType


def first_overflow(imported: Imported, inputs: Mapping[str, NDArray[Any]]) -> tuple[str, float] | None:
    """The first layer whose results do not fit float16, and the largest of them; None when all do.

    The model runs in float32 on this machine, with the results of all layers as its outputs.
    """
    fused_ops = find_fused_ops(imported.module)
    if not fused_ops:
        return None
    module, names = (
        returning(imported.module, [fused_op.result for fused_op in fused_ops]),
        layer_names(imported.module),
    )
    specs = tuple(TensorSpec(str(number), shape_of(fused_op.result) or ()) for number, fused_op in enumerate(fused_ops))
    results = compile(replace(imported, module=module, outputs=specs)).run(inputs)
    for number, fused_op in enumerate(fused_ops):
        largest = float(np.abs(results[str(number)]).max(initial=0))
        if not largest <= DType.FLOAT16.largest:
            return names.get(fused_op.var.name, fused_op.var.name), largest
    return None
