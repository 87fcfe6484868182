"""ONNX: .onnx files, with their weights inside or in external data files, opset 7 and newer."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper
from tvm.relax.frontend.onnx.onnx_frontend import _get_convert_map

from pconvgen.errors import PconvgenError, last_line
from pconvgen.frontend.ends import Types
from pconvgen.frontend.finish import finish
from pconvgen.frontend.onnx.converters import CONVERTERS
from pconvgen.frontend.onnx.floats import declared_types, dtype_name, narrow
from pconvgen.frontend.onnx.graph import layer_of, name_nodes, values_of
from pconvgen.frontend.onnx.importer import WEIGHTED, Importer
from pconvgen.frontend.onnx.judge import judge
from pconvgen.frontend.onnx.order import sort_nodes
from pconvgen.frontend.onnx.quantised import as_floats, with_weights
from pconvgen.frontend.onnx.shapes import fold_shapes, trusted_shapes
from pconvgen.frontend.onnx.sparse import write_zeros
from pconvgen.frontend.onnx.versions import modern, opset_of
from pconvgen.frontend.refusals import importing
from pconvgen.frontend.spec import (
    Imported,
    check_batch_statistics,
    check_input_dtype,
    resolve_shapes,
    unique,
    variable_name,
)


def import_file(path: Path, inputs: Mapping[str, Sequence[int]] | None) -> Imported:
    """Import an ONNX file; dynamic dimensions of its inputs get the sizes in `inputs`."""
    source = str(path)
    model = modern(load_file(path), source)
    graph = model.graph
    opset = opset_of(model)
    weights = {tensor.name for tensor in graph.initializer}
    declared = {value.name: _declared(value, source) for value in graph.input if value.name not in weights}
    shapes = resolve_shapes(declared, inputs, source)
    name_nodes(graph)
    taken, given = declared_types(graph)
    dequantised = as_floats(model, source)
    _check_nodes(graph, source)
    layers, variables = _name_layers(graph)
    fold_shapes(model, shapes)
    quantised = {layers[variable] for variable in with_weights(graph, variables, dequantised or ())}
    floats = narrow(graph)
    inferred = trusted_shapes(model, shapes)
    expected = {node.name: [inferred.get(output) for output in node.output] for node in graph.node}
    importer = Importer({name: list(shape) for name, shape in shapes.items()}, variables, expected, source)
    remedy = "export the model again with another exporter (dynamo=True or dynamo=False) or opset"
    with (
        importing(lambda: importer.bb, source, remedy),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        module = importer.from_onnx(graph, opset)
    outputs = [value.name for value in graph.output]
    types = Types(
        inputs=taken,
        outputs=given,
        floats=frozenset(floats),
        quantised=frozenset(quantised),
        integers=dequantised is not None,
    )
    imported = finish(module, list(shapes), outputs, layers, judge(path, outputs), source, types, importer.origins)
    _check_declared(graph, imported, inferred)
    return imported


def _check_declared(graph: onnx.GraphProto, imported: Imported, inferred: Mapping[str, Sequence[int] | None]) -> None:
    """Raise when an output has another shape than the file declares, unless inference confirms it or is in doubt."""
    for value, output in zip(graph.output, imported.outputs, strict=True):
        shape = value.type.tensor_type.shape
        sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in shape.dim]
        confirmed = inferred.get(value.name, []) in (None, list(output.shape))
        if confirmed or not value.type.tensor_type.HasField("shape"):
            continue
        if len(sizes) != len(output.shape) or any(
            wanted not in (None, found) for wanted, found in zip(sizes, output.shape, strict=True)
        ):
            raise PconvgenError(
                f"output {value.name} has another shape than the file declares",
                file=imported.source,
                found="x".join(map(str, output.shape)) or "a scalar",
                expected="x".join("?" if size is None else str(size) for size in sizes) or "a scalar",
                remedy="if the file is right, this is a fault in pconvgen: report it with the model",
            )


def load_file(path: Path) -> onnx.ModelProto:
    """The model in an ONNX file, with its weights. Raises PconvgenError when it is something else or damaged."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise _foreign(path, "no ONNX protobuf, or a truncated one") from error
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            location = external_data_helper.ExternalDataInfo(tensor).location
            if not (path.parent / location).is_file():
                raise PconvgenError(
                    "the weights of this model are missing",
                    file=path,
                    layer=tensor.name,
                    found="no such file",
                    expected=str(path.parent / location),
                    remedy="copy the external data file next to the model",
                )
    try:
        moved = sort_nodes(model.graph)
        shapeless = _give_types(model)
        if not moved and not shapeless:
            onnx.checker.check_model(str(path))
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        if moved or shapeless:
            _check_without_shapes(model, shapeless)
        for tensor in model.graph.initializer:
            numpy_helper.to_array(tensor)
        write_zeros(model.graph)
    except Exception as error:
        raise _foreign(path, last_line(error)) from error
    return model


def _give_types(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Gives outputs that have no type the one that ONNX infers, in place; those that have no shape.

    Every runtime takes such files, ONNX's checker does not.
    """
    graph = model.graph
    tensors = [value for value in graph.output if value.type.WhichOneof("value") in (None, "tensor_type")]
    if any(value.type.tensor_type.elem_type == 0 for value in tensors):
        inferred = {
            value.name: value.type.tensor_type for value in onnx.shape_inference.infer_shapes(model).graph.output
        }
        for value in tensors:
            value.type.tensor_type.elem_type = inferred[value.name].elem_type or onnx.TensorProto.FLOAT
    return [value for value in tensors if not value.type.tensor_type.HasField("shape")]


def _check_without_shapes(model: onnx.ModelProto, shapeless: Sequence[onnx.ValueInfoProto]) -> None:
    """ONNX's checker, which wants some shape of each output."""
    for value in shapeless:
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    for value in shapeless:
        value.type.tensor_type.ClearField("shape")


def _foreign(path: Path, found: str) -> PconvgenError:
    return PconvgenError(
        "this is not a valid ONNX model",
        file=path,
        found=found,
        expected="what torch.onnx.export or onnx.save wrote",
        remedy="copy or export the file again",
    )


def _declared(value: onnx.ValueInfoProto, source: str) -> list[int | None]:
    """An input's sizes, None for what is open; some converters write that as -1 or 0."""
    tensor = value.type.tensor_type
    check_input_dtype(value.name, dtype_name(tensor.elem_type), source)
    return [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]


def _check_nodes(graph: onnx.GraphProto, source: str) -> None:
    known = _get_convert_map().keys() | CONVERTERS.keys() | {"Constant", "If"}
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise PconvgenError(
                f"operator {operator} is not supported",
                file=source,
                layer=node.name,
                remedy="replace it in the model, or export the model with another exporter or opset",
            )
        if node.op_type == "BatchNormalization":
            training = any(entry.name == "training_mode" and entry.i for entry in node.attribute)
            # One without statistics of its own takes those of the batch in either mode.
            kept = not stored.isdisjoint(node.input[3:5])
            check_batch_statistics(training and kept, node.name, source)


def _name_layers(graph: onnx.GraphProto) -> tuple[dict[str, str], dict[str, str]]:
    """variable -> layer, and node -> variable, of the nodes that have a weight."""
    values = values_of(graph)
    layers: dict[str, str] = {}
    variables: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in WEIGHTED:
            continue
        layer = layer_of(node, values)
        name = unique(variable_name(layer), layers)
        layers[name] = layer
        variables[node.name] = name
    return layers, variables
