"""The weights of ONNX files, to be changed in place; everything else of the file stays."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, numpy_helper

from pconvgen.files import replacing
from pconvgen.frontend.onnx.file import load_file
from pconvgen.frontend.onnx.graph import GraphValues, layer_of, name_nodes, values_of
from pconvgen.frontend.spec import check_dtype, unique
from pconvgen.frontend.weights import OtherWeight, WeightedLayer, as_kernels
from pconvgen.sparsity.structure import swap_channels

_OPERATORS = {"Conv": "conv2d", "ConvTranspose": "conv2d_transpose", "Gemm": "linear", "MatMul": "linear"}
_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file with its weights.

    Attributes
    ----------
    proto: the model, weights loaded.
    external: the tensors that the file keeps in external data files.
    """

    proto: onnx.ModelProto
    external: tuple[onnx.TensorProto, ...]


def load(path: Path) -> OnnxModel:
    """The model in an ONNX file. Raises PconvgenError when it is something else, damaged, or lacks its data files."""
    proto = load_file(path)
    # Loading forgets which tensors were outside; the file itself still tells.
    stored = external_data_helper._get_all_tensors(onnx.load(str(path), load_external_data=False))
    outside = {tensor.name for tensor in stored if external_data_helper.uses_external_data(tensor)}
    tensors = external_data_helper._get_all_tensors(proto)
    return OnnxModel(proto, tuple(tensor for tensor in tensors if tensor.name in outside))


def layers(model: OnnxModel, source: str) -> list[WeightedLayer]:
    """The two-dimensional convolutions, transposed ones too, and products with a constant matrix, in file order.

    Raises PconvgenError when a weight is not float32.
    """
    graph = model.proto.graph
    values = values_of(graph)
    found: list[WeightedLayer] = []
    taken: dict[str, None] = {}
    for node, name in zip(graph.node, _layer_names(graph, values), strict=True):
        if node.op_type not in _OPERATORS:
            continue
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        tensor, flipped = _constant(node.input[1], values)
        op = _OPERATORS[node.op_type]
        if tensor is not None and len(tensor.dims) != (2 if op == "linear" else 4):
            continue
        if tensor is None and op == "linear":
            continue  # a product of two activations is no layer
        name = unique(name, taken)
        taken[name] = None
        groups = attributes.get("group", 1)
        if tensor is None:
            found.append(WeightedLayer(name, op, groups, None, _refuse, name))
            continue
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        check_dtype("weight", tensor.name, {"float": "float32", "double": "float64"}.get(dtype, dtype), source)
        # A product's second operand is [channels, filters], unless Gemm is told otherwise.
        flipped ^= op == "linear" and not attributes.get("transB", 0)
        weight = numpy_helper.to_array(tensor)
        if op == "conv2d_transpose":
            store = partial(_store_swapped, tensor, groups)
            found.append(WeightedLayer(name, op, groups, swap_channels(weight, groups), store, id(tensor)))
            continue
        store = partial(_store, tensor, flipped)
        found.append(WeightedLayer(name, op, groups, as_kernels(weight.T if flipped else weight), store, id(tensor)))
    return found


def others(model: OnnxModel) -> list[OtherWeight]:
    """The weights of convolutions in one or three dimensions and of recurrent layers, in file order."""
    graph = model.proto.graph
    values = values_of(graph)
    found: dict[str, OtherWeight] = {}
    for node, name in zip(graph.node, _layer_names(graph, values), strict=True):
        places = range(1, 3) if node.op_type in _RECURRENT else range(1, 2) if "Conv" in node.op_type else ()
        for place in places:
            tensor, _ = _constant(node.input[place], values)
            if tensor is None or tensor.name in found or (place == 1 and len(tensor.dims) == 4):
                continue
            density = float(np.count_nonzero(numpy_helper.to_array(tensor)) / max(np.prod(tensor.dims), 1))
            found[tensor.name] = OtherWeight(name, _operator(node, tensor), tuple(tensor.dims), density)
    return list(found.values())


def _operator(node: onnx.NodeProto, weight: Any) -> str:
    """What PyTorch calls the operator: conv1d, conv3d_transpose, lstm."""
    if node.op_type in _RECURRENT:
        return str(node.op_type).lower()
    return f"conv{len(weight.dims) - 2}d" + ("_transpose" if "Transpose" in node.op_type else "")


def save(model: OnnxModel, path: Path) -> None:
    """Writes the model, whole or not at all, with as many external data as it had: all in `<name>.data` beside it.

    Raises PconvgenError when the path cannot be written.
    """
    data = path.with_name(f"{path.name}.data")
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        if model.external:
            target = stack.enter_context(replacing(data))
            for tensor in model.external:
                external_data_helper.set_external_data(tensor, location=target.name)
            external_data_helper.write_external_data_tensors(model.proto, str(target.parent))
            for tensor in model.external:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = data.name
        temporary.write_bytes(model.proto.SerializeToString())


def _layer_names(graph: onnx.GraphProto, values: GraphValues) -> list[str]:
    """The layer that each node computes, as the importer names it; the nodes keep the names they have."""
    before = [node.name for node in graph.node]
    name_nodes(graph)
    names = [layer_of(node, values) for node in graph.node]
    for node, name in zip(graph.node, before, strict=True):
        node.name = name
    return names


def _constant(name: str, values: GraphValues) -> tuple[Any, bool]:
    """The tensor of that name behind copies and transpositions, and whether these flip it; None when it is computed."""
    flipped = False
    while name not in values.weights:
        node = values.produced.get(name)
        if node is None:
            return None, False
        if node.op_type == "Constant":
            tensors = [entry.t for entry in node.attribute if entry.name == "value"]
            return (tensors[0] if tensors else None), flipped
        permutations = [list(entry.ints) for entry in node.attribute if entry.name == "perm"]
        if node.op_type == "Transpose" and permutations in ([], [[1, 0]]):
            flipped = not flipped
        elif node.op_type != "Identity":
            return None, False
        name = node.input[0]
    return values.weights[name], flipped


def _store(tensor: onnx.TensorProto, flipped: bool, weight: NDArray[np.float32]) -> None:
    matrix = weight.reshape(weight.shape[:2]) if len(tensor.dims) == 2 else weight
    tensor.ClearField("float_data")
    tensor.raw_data = np.ascontiguousarray(matrix.T if flipped else matrix, "<f4").tobytes()


def _store_swapped(tensor: onnx.TensorProto, groups: int, weight: NDArray[np.float32]) -> None:
    _store(tensor, False, swap_channels(weight, groups))


def _refuse(weight: NDArray[np.float32]) -> None:
    raise AssertionError("a weight that is computed cannot be stored")
