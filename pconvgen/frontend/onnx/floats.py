"""Other floats than float32 in an ONNX graph: all of it is computed in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from pconvgen.frontend.spec import FLOATS, INPUT_DTYPES, as_float32, at_the_ends

OTHERS = {
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}
"""The types that become float32, by NumPy's names."""

_TYPED = {"Cast": "to", "EyeLike": "dtype"}
"""Operators with an attribute for the type of their result."""


def dtype_name(element: int) -> str:
    """NumPy's name of a type, such as float32; ONNX's in small letters where NumPy has none, such as string."""
    name = str(onnx.TensorProto.DataType.Name(element)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def declared_types(graph: onnx.GraphProto) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> type of the inputs and outputs, as the compiled model has them; without those that it cannot have."""
    taken, given = (
        {value.name: at_the_ends(dtype_name(value.type.tensor_type.elem_type)) for value in values}
        for values in (graph.input, graph.output)
    )
    return taken, {name: dtype for name, dtype in given.items() if dtype in INPUT_DTYPES + FLOATS}


def narrow(graph: onnx.GraphProto) -> set[str]:
    """Makes all floats float32, in place: constants, inputs, outputs, casts. The types that it found."""
    found: set[str] = set()
    for values in (graph.input, graph.output, graph.value_info):
        for value in values:
            tensor = value.type.tensor_type
            if tensor.elem_type in OTHERS:
                found.add(OTHERS[tensor.elem_type])
                tensor.elem_type = onnx.TensorProto.FLOAT
    for tensor in _tensors(graph):
        if tensor.data_type in OTHERS:
            found.add(OTHERS[tensor.data_type])
            array = as_float32(numpy_helper.to_array(tensor).astype(np.float64))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        for entry in node.attribute:
            if entry.name == _TYPED.get(node.op_type) and entry.i in OTHERS:
                found.add(OTHERS[entry.i])
                entry.i = onnx.TensorProto.FLOAT
            for inner in (entry.g, *entry.graphs):
                found |= narrow(inner) if inner.node else set()
    return found


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            if entry.HasField("t"):
                yield entry.t
            yield from entry.tensors
