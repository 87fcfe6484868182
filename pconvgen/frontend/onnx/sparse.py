"""Sparse tensors of ONNX, written out with their zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnx import GraphProto


def write_zeros(graph: GraphProto) -> None:
    """Make initializers of sparse initializers, and values of sparse values of Constant nodes; in place."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, sparse.values.name))
    graph.ClearField("sparse_initializer")
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "sparse_value":
            value = helper.make_attribute("value", _dense(node.attribute[0].sparse_tensor, node.output[0]))
            node.attribute[0].CopyFrom(value)


def _dense(sparse: Any, name: str) -> Any:
    """A tensor of places (one number each, or one for each dimension) and values, as one of all elements."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    tensor = np.zeros(list(sparse.dims), values.dtype)
    if places.ndim == 1:
        tensor.reshape(-1)[places] = values
    else:
        tensor[tuple(places.T)] = values
    return numpy_helper.from_array(tensor, name)
