"""Many ONNX operators in one model, whose every output is compared with onnxruntime's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import pconvgen

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.

    Attributes
    ----------
    operator: its name.
    inputs: each the name of an input of the model, an array for a constant, or None for one that is not given.
    attributes: of the operator.
    outputs: how many of its outputs the model has.
    """

    operator: str
    inputs: tuple[str | NDArray[Any] | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1


def write(nodes: Mapping[str, Node], inputs: Arrays, path: Path, opset: int) -> None:
    """A model of independent operators with named nodes; outputs are named like their node, the further ones with a
    number."""
    proto, constants, results = [], [], []
    for name, node in nodes.items():
        operands = []
        for index, value in enumerate(node.inputs):
            if isinstance(value, np.ndarray):
                constants.append(numpy_helper.from_array(value, f"{name} constant {index}"))
                value = constants[-1].name
            operands.append(value or "")
        outputs = [name, *(f"{name} {index}" for index in range(1, node.outputs))]
        proto.append(helper.make_node(node.operator, operands, outputs, name, **node.attributes))
        results += [onnx.ValueInfoProto(name=output) for output in outputs]
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    graph = helper.make_graph(proto, "nodes", declared, [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    shaped = {value.name: value for value in inferred if value.type.tensor_type.HasField("shape")}
    # Of functions onnx infers nothing; those of images keep their shape.
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, next(iter(inputs.values())).shape)
    for result in results:
        known = shaped.get(result.name, image)
        graph.output.append(onnx.ValueInfoProto(name=result.name, type=known.type))
    model.graph.CopyFrom(graph)
    onnx.save(model, str(path))


def differing(nodes: Mapping[str, Node], inputs: Arrays, path: Path, opset: int = 20) -> dict[str, str]:
    """Compiles all nodes as one model at `path`; output -> what is wrong with it beside onnxruntime's."""
    write(nodes, inputs, path, opset)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(None, dict(inputs)), strict=True))
    return disagreements(pconvgen.compile(path).run(dict(inputs)), expected)


def disagreements(found: Arrays, expected: Arrays) -> dict[str, str]:
    """Output -> what is wrong with it."""
    return {name: wrong for name in expected if (wrong := difference(found[name], expected[name]))}


def difference(found: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-5) -> str:
    """What distinguishes two arrays, in words; "" when that is rounding."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype}{found.shape} in place of {expected.dtype}{expected.shape}"
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    if np.allclose(found, expected, tolerance, tolerance * largest, equal_nan=True):
        return ""
    return f"{np.abs(found.astype(float) - expected).max():.2g} off"
