"""Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from pconvgen.frontend.torch.calls import arguments, expression
from pconvgen.tvm_compat import constant


def group_norm(node: Any, importer: Any) -> Any:
    args = arguments(node)
    data = importer.env[args["input"]]
    shape = [int(data.ty.shape[1])]
    weight, bias = expression(importer, args["weight"]), expression(importer, args["bias"])
    call = relax.op.nn.group_norm(
        data,
        constant(np.ones(shape, np.float32)) if weight is None else weight,
        constant(np.zeros(shape, np.float32)) if bias is None else bias,
        num_groups=args["num_groups"],
        channel_axis=1,
        axes=list(range(2, len(data.ty.shape))),
        epsilon=args["eps"],
    )
    return importer.block_builder.emit(call)
