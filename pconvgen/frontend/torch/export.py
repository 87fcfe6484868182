"""PyTorch: .pt2 files of torch.export.save, ExportedPrograms and nn.Modules."""

from __future__ import annotations

import gc
import operator
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import InputKind, TensorArgument
from torch.utils import _pytree as pytree
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from pconvgen.errors import PconvgenError, last_line
from pconvgen.frontend.ends import Types
from pconvgen.frontend.finish import control_flow, finish
from pconvgen.frontend.origins import Origins
from pconvgen.frontend.refusals import importing
from pconvgen.frontend.shapes import check_shapes
from pconvgen.frontend.spec import (
    FLOATS,
    Imported,
    Judge,
    NamedArrays,
    at_the_ends,
    check_batch_statistics,
    check_dtype,
    check_input_dtype,
    resolve_shapes,
    unique,
    variable_name,
)
from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.converters import CONVERTERS, REFUSED
from pconvgen.frontend.torch.convolutions import LAYER_META
from pconvgen.frontend.torch.decompose import decompose
from pconvgen.frontend.torch.exporting import specialise
from pconvgen.frontend.torch.floats import in_float32, name_of, other_floats
from pconvgen.frontend.torch.origins import noting
from pconvgen.frontend.torch.outputs import Output, outputs_of, returning
from pconvgen.frontend.torch.promotion import promote
from pconvgen.frontend.torch.quantised import quantised_layers, register
from pconvgen.frontend.torch.sparse import is_sparse
from pconvgen.tvm_compat.relax import Expr, shapes_of

EXPORT_HINT = "export the model: torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"
LARGE = 1 << 26
"""Bytes of a file of which no second copy shall stay in memory; looking for it takes some tenths of a second."""
_WEIGHTED = ("conv", "linear.")
_MODAL = (
    "batch_norm.default",
    "_native_batch_norm_legit.default",
    "_native_batch_norm_legit_functional.default",
    "dropout.default",
    "dropout_.default",
    "feature_dropout.default",
)


def load_file(path: Path) -> torch.export.ExportedProgram:
    """The ExportedProgram in a .pt2 file. Raises PconvgenError when it is something else or damaged."""
    _check_archive(path)
    register()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:
        raise PconvgenError(
            "torch cannot read this export",
            file=path,
            found=last_line(error),
            expected=f"a file that torch.export.save of torch {torch.__version__} or older wrote",
            remedy="export the model again with the torch that is installed here",
        ) from error


def _check_archive(path: Path) -> None:
    """Raise unless `path` is a whole zip archive with the marks of torch.export."""
    with path.open("rb") as file:
        cut = file.read(4) == b"PK\x03\x04"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2] for name in archive.namelist()}
            cut = min((item.header_offset for item in archive.infolist()), default=0) > 0  # found an archive inside it
        if not cut and members & {"archive_format", "serialized_exported_program.json"}:
            return
    else:
        members = set()
    if cut:
        found = "a damaged or truncated archive"
    elif "constants.pkl" in members:
        found = "a TorchScript file"
    elif "data.pkl" in members:
        found = "pickled weights or a pickled module (torch.save)"
    else:
        found = "another zip archive" if members else "no zip archive"
    raise PconvgenError(
        "this is not a torch.export file",
        file=path,
        found=found,
        expected="what torch.export.save wrote",
        remedy="copy or export the file again" if cut else EXPORT_HINT,
    )


def import_file(path: Path, inputs: Mapping[str, Sequence[int]] | None) -> Imported:
    """Import a .pt2 file; dynamic dimensions of its inputs get the sizes in `inputs`. The judge reads it again."""
    imported = finish(*_convert(load_file(path), inputs, str(path), again=lambda: load_file(path)))
    if path.stat().st_size > LARGE:
        gc.collect()  # the program: a circle of references, and a second copy of weights
    return imported


def import_program(
    program: torch.export.ExportedProgram, inputs: Mapping[str, Sequence[int]] | None, source: str
) -> Imported:
    """Import an ExportedProgram; dynamic dimensions of its inputs get the sizes in `inputs`."""
    return finish(*_convert(program, inputs, source))


def _convert(
    program: torch.export.ExportedProgram,
    inputs: Mapping[str, Sequence[int]] | None,
    source: str,
    again: Callable[[], torch.export.ExportedProgram] | None = None,
) -> tuple[Any, ...]:
    """The arguments of `finish`. With `again`, which reads a file, they do not keep the program's weights in memory."""
    declared = _declared_inputs(program, source)
    shapes = resolve_shapes(declared, inputs, source)
    types = _input_types(program)
    if any(None in shape for shape in declared.values()):
        program, again = specialise(program.module(), shapes, types, program.call_spec.in_spec, source), None
    _check_weights(program, source)
    outputs = outputs_of(program, source)
    names = [output.name for output in outputs]
    given = {output.name: output.dtype for output in outputs}
    given_program = program  # the judge's; what is imported may be another one by then
    judge = _judge(again or (lambda: given_program), program.call_spec.in_spec, types, outputs)
    if any(map(is_sparse, (*program.state_dict.values(), *program.constants.values()))):
        program = specialise(program.module(), shapes, types, program.call_spec.in_spec, source)
    others = other_floats(program, types)
    if others:
        narrow = {name: torch.float32 if dtype in others else dtype for name, dtype in types.items()}
        program = specialise(in_float32(program, others), shapes, narrow, program.call_spec.in_spec, source)
    _check_mode(program, _targets(program), source)
    importer, origins = ExportedProgramImporter(), Origins()
    known = (importer.convert_map.keys() | CONVERTERS.keys()) - REFUSED
    functional = returning(decompose(program, known, source), outputs)
    layers = _name_layers(functional, _targets(functional))
    _check_operators(functional, known, source)
    quantised = quantised_layers(functional)
    promote(functional)
    remedy = "replace the operator in the model, or add a row to pconvgen/frontend/torch/converters.py"
    with importing(lambda: importer.block_builder, source, remedy):
        module = importer.from_exported_program(
            functional,
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=noting(importer.convert_map, CONVERTERS, origins, source),
        )
    _check_results(functional, importer.env, source)
    ends = Types(
        inputs={name: at_the_ends(name_of(dtype)) for name, dtype in types.items()},
        outputs={name: at_the_ends(name_of(dtype)) for name, dtype in given.items()},
        floats=frozenset(map(name_of, others)),
        quantised=frozenset(layers[variable] for variable in quantised or ()),
        integers=quantised is not None,
    )
    return module, list(shapes), names, layers, judge, source, ends, origins


def _check_results(
    program: torch.export.ExportedProgram, expressions: Mapping[torch.fx.Node, Expr], source: str
) -> None:
    """Raise when an operator has another shape than PyTorch gives its result."""
    for node in _calls(program):
        value = node.meta.get("val")
        if node not in expressions or not isinstance(value, torch.Tensor) or not hasattr(expressions[node], "ty"):
            continue
        module, op = _module_of(node), node.target.__name__
        check_shapes(shapes_of(expressions[node]), [list(value.shape)], module, op, source)


def _declared_inputs(program: torch.export.ExportedProgram, source: str) -> dict[str, list[int | None]]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    declared: dict[str, list[int | None]] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        name = spec.arg.name
        if not isinstance(spec.arg, TensorArgument):
            raise PconvgenError(
                f"input {name} is not a tensor",
                file=source,
                found=getattr(spec.arg, "value", None),
                expected="a tensor",
                remedy="make it an attribute of the model, then export again",
            )
        check_input_dtype(name, name_of(values[name].dtype), source)
        declared[name] = [size if isinstance(size, int) else None for size in values[name].shape]
    return declared


def _input_types(program: torch.export.ExportedProgram) -> dict[str, torch.dtype]:
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return {name: values[name].dtype for name in program.graph_signature.user_inputs}


def _check_weights(program: torch.export.ExportedProgram, source: str) -> None:
    for name, tensor in program.state_dict.items():
        if tensor.is_meta:
            raise PconvgenError(
                f"weight {name} has no values",
                file=source,
                found="a tensor on the device meta",
                remedy="load the weights before you export the model",
            )
        if tensor.is_floating_point() and name_of(tensor.dtype) not in FLOATS:
            check_dtype("weight", name, name_of(tensor.dtype), source)


def _targets(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Name of the input of the graph -> name of the weight or constant."""
    return {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}


def _split(target: str) -> tuple[str, str, str]:
    """Layer, separator, parameter: of "conv1.weight_orig" as of "conv1.parametrizations.weight.original" the layer is
    "conv1"."""
    layer, mark, rest = target.partition(".parametrizations.")
    return (layer, mark, rest) if mark else target.rpartition(".")


def _calls(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def _check_mode(program: torch.export.ExportedProgram, targets: Mapping[str, str], source: str) -> None:
    for node in _calls(program):
        if node.target.__name__ in _MODAL:
            args = arguments(node)
            training = args["training"] if "training" in args else args["train"]
            # A batch norm that keeps no statistics takes those of the batch in either mode.
            kept = args.get("running_mean", True) is not None
            check_batch_statistics(bool(training and kept), _layer_of(node, targets), source)


def _layer_of(node: torch.fx.Node, targets: Mapping[str, str]) -> str:
    """The module that owns the weight of `node`; the one that calls it where there is none, or it is an activation."""
    sources = dict.fromkeys([arg for arg in node.args[1:3] if isinstance(arg, torch.fx.Node)][:1])
    pending = list(sources)
    for source in pending:
        pending += [each for each in source.all_input_nodes if each not in sources]
        sources.update(dict.fromkeys(source.all_input_nodes))
    parameters = [source.name for source in pending if source.op == "placeholder"]
    if parameters and all(name in targets for name in parameters):
        target = targets[parameters[0]]
        return _split(target)[0] or target
    return _module_of(node)


def _module_of(node: torch.fx.Node) -> str:
    """The module that calls `node`, else the node's own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (stack[-1][0] if stack else "") or node.name


def _name_layers(program: torch.export.ExportedProgram, targets: Mapping[str, str]) -> dict[str, str]:
    """Mark every convolution and linear node with a unique identifier; identifier -> layer name."""
    layers: dict[str, str] = {}
    for node in _calls(program):
        if not node.target.__name__.startswith(_WEIGHTED):
            continue
        layer = _layer_of(node, targets)
        name = unique(variable_name(layer), layers)
        layers[name] = layer
        node.meta[LAYER_META] = name
    return layers


def _check_operators(program: torch.export.ExportedProgram, known: Collection[str], source: str) -> None:
    for node in _calls(program):
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise control_flow(source)
        if _is_index_of_maximum(node):
            message = "the indices of a max pooling are not supported"
        elif node.target.__name__ not in known:
            message = f"operator {node.target} is not supported"
        else:
            continue
        layer = _module_of(node)
        remedy = "replace it in the model, or add a row to pconvgen/frontend/torch/converters.py"
        raise PconvgenError(message, file=source, layer=layer, found=f"node {node.name}", remedy=remedy)


def _is_index_of_maximum(node: torch.fx.Node) -> bool:
    """Whether `node` takes the indices that a max pooling returns; TVM gives zeros for them."""
    pooling = node.target is operator.getitem and node.args[1] == 1 and getattr(node.args[0].target, "__name__", "")
    return isinstance(pooling, str) and "max_pool" in pooling


def _judge(
    read: Callable[[], Any], in_spec: Any, inputs: Mapping[str, torch.dtype], outputs: Sequence[Output]
) -> Judge:
    module: list[Any] = []

    def run(values: NamedArrays) -> NamedArrays:
        if not module:
            module.append(read().module())
        flat = [torch.from_numpy(values[name].copy()).to(dtype) for name, dtype in inputs.items()]
        args, kwargs = pytree.tree_unflatten(flat, in_spec)
        with torch.no_grad():
            leaves = pytree.tree_leaves(module[0](*args, **kwargs))
        results = {output.name: leaves[output.place] for output in outputs}
        # NumPy has no bfloat16.
        return {n: (r.float() if r.dtype == torch.bfloat16 else r).numpy() for n, r in results.items()}

    return Judge(f"PyTorch {torch.__version__}", run)
