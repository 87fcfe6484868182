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
from pconvgen.matching.sites import find_sites
from pconvgen.tvm_compat.relax import shape_of
from pconvgen.tvm_compat.rewriting import layer_names, returning
from pconvgen.values.dtype import DType


def first_overflow(imported: Imported, inputs: Mapping[str, NDArray[Any]]) -> tuple[str, float] | None:
    """The first layer whose results do not fit float16, and the largest of them; None when all do.

    The model runs in float32 on this machine, with the results of all layers as its outputs.
    """
    sites = find_sites(imported.module)
    if not sites:
        return None
    module, names = returning(imported.module, [site.result for site in sites]), layer_names(imported.module)
    specs = tuple(TensorSpec(str(number), shape_of(site.result) or ()) for number, site in enumerate(sites))
    results = compile(replace(imported, module=module, outputs=specs)).run(inputs)
    for number, site in enumerate(sites):
        largest = float(np.abs(results[str(number)]).max(initial=0))
        if not largest <= DType.FLOAT16.largest:
            return names.get(site.var.name, site.var.name), largest
    return None
