"""Evaluates shape arithmetic of an ONNX graph whose inputs have static shapes, so that only the network is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

SMALL = 4096
"""Elements of the largest constant that counts as shape arithmetic and not as a weight."""

_KEEP = ("If", "Loop", "Scan", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial")


def fold_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Replace Shape nodes and what depends only on them and on small constants (lists of pads) by initializers.

    before: Slice(x, start=0, end=Div(Gather(Shape(x), 1), 2), axis=1)
    after:  Slice(x, start=0, end=12, axis=1)

    In place. Shapes are inferred again after each round, since a folded Slice or Reshape makes more of them known.
    """
    graph = model.graph
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if np.prod(tensor.dims) <= SMALL
    }
    changed = True
    while changed:
        known = known_shapes(model, shapes) if any(node.op_type == "Shape" for node in graph.node) else {}
        folded = []
        for node in graph.node:
            values = _evaluate(node, constants, known, model)
            if values is not None:
                constants.update(values)
                folded.append(node)
        for node in folded:
            graph.node.remove(node)
            for name in filter(None, node.output):
                graph.initializer.append(numpy_helper.from_array(constants[name], name))
        changed = bool(folded)


def known_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The static shapes of all values that shape inference knows; weights are left out of what it is given."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs = []
    for value in graph.input:
        if value.name not in weights:
            inputs.append(
                helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shapes[value.name])
            )
    small = []
    for name, tensor in weights.items():
        if np.prod(tensor.dims) <= SMALL:
            small.append(tensor)
        else:
            inputs.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    light = helper.make_model(
        helper.make_graph(list(graph.node), "shapes", inputs, [], small),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    known = {}
    for value in [*inferred.input, *inferred.value_info]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = [dim.dim_value for dim in dims]
    return known | {name: list(tensor.dims) for name, tensor in weights.items()}


def trusted_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int] | None]:
    """As `known_shapes`; None where ONNX infers otherwise than onnxruntime computes, and behind that."""
    trusted: dict[str, list[int] | None] = {**known_shapes(model, shapes)}
    for node in model.graph.node:
        if _misinferred(node) or any(trusted.get(name, []) is None for name in node.input):
            trusted.update(dict.fromkeys(node.output))
    return trusted


def _misinferred(node: onnx.NodeProto) -> bool:
    """Whether a pool rounds up: onnxruntime leaves out windows that begin in the padding, ONNX counts some of them."""
    return node.op_type.endswith("Pool") and any(entry.name == "ceil_mode" and entry.i for entry in node.attribute)


def _evaluate(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], known: Mapping[str, list[int]], model: onnx.ModelProto
) -> dict[str, NDArray[Any]] | None:
    """Output name -> value; None when the node has to stay."""
    if node.op_type == "Shape":
        if node.input[0] not in known:
            return None
        bounds = {entry.name: entry.i for entry in node.attribute}
        shape = known[node.input[0]][bounds.get("start", 0) : bounds.get("end")]
        return {node.output[0]: np.array(shape, np.int64)}
    names = [name for name in node.input if name]
    if node.op_type.startswith(_KEEP) or any(name not in constants for name in names):
        return None
    if not names and node.op_type != "Constant":
        return None
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in names]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output if name]
    single = helper.make_model(
        helper.make_graph([node], "node", inputs, outputs),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    try:
        values = ReferenceEvaluator(single).run(None, {name: constants[name] for name in names})
    except Exception:
        # It lacks operators and types, and some of its operators do not broadcast; the importer does.
        return None
    return dict(zip((name for name in node.output if name), map(np.asarray, values), strict=True))
