"""Evaluates what an exported program computes from its weights and constants only."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from pconvgen.frontend.spec import unique

_SPREADS = frozenset(
    f"aten::{name}" for name in ("expand", "repeat", "full", "full_like", "zeros", "zeros_like", "ones")
)
_LARGE = 1 << 16
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def fold_constants(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """`program`, which is functional and is changed, with a constant in place of each result that no input reaches.

    before: w = householder_product(base, tau); y = conv2d(x, w)
    after:  y = conv2d(x, folded)

    A constant is named after the largest weight that it was computed from, so its layer stays known. Large tensors of
    repeated numbers stay operators, since a library would have to hold them.
    """
    values, origins = _evaluate(program)
    replaced = _replaced(program.graph, values)
    if not replaced:
        return program
    specs = program.graph_signature.input_specs
    place = next((i for i, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT), len(specs))
    anchor = list(program.graph.nodes)[place]
    constants, folded, renamed = dict(program.constants), [], {}
    for node in replaced:
        target = unique(f"{origins.get(node, 'constant')}_folded", {**program.state_dict, **constants})
        constants[target] = values[node].detach().clone(memory_format=torch.contiguous_format)
        with program.graph.inserting_before(anchor):
            placeholder = program.graph.placeholder(f"c_{target.replace('.', '_')}")
        placeholder.meta = {"val": node.meta["val"]}
        folded.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), target))
        renamed[node.name] = placeholder.name
        node.replace_all_uses_with(placeholder)
    for node in reversed(list(program.graph.nodes)):
        if node in values and node.op == "call_function" and not node.users:
            program.graph.erase_node(node)
    program.graph_module.recompile()
    signature = ExportGraphSignature(
        [*specs[:place], *folded, *specs[place:]],
        [_renamed(spec, renamed) for spec in program.graph_signature.output_specs],
    )
    return program._update(program.graph_module, signature, constants=constants)


def _renamed(spec: Any, names: Mapping[str, str]) -> Any:
    name = getattr(spec.arg, "name", "")
    return replace(spec, arg=replace(spec.arg, name=names[name])) if name in names else spec


def _evaluate(program: torch.export.ExportedProgram) -> tuple[dict[torch.fx.Node, Any], dict[torch.fx.Node, str]]:
    """The values of all nodes that no input reaches, and the largest weight behind each."""
    state = {
        spec.arg.name: (spec.target, program.state_dict.get(spec.target, program.constants.get(spec.target)))
        for spec in program.graph_signature.input_specs
        if spec.kind in _STATE
    }
    values: dict[torch.fx.Node, Any] = {}
    origins: dict[torch.fx.Node, str] = {}
    sizes: dict[torch.fx.Node, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in state:
            origins[node], values[node] = state[node.name]
            sizes[node] = values[node].numel()
        elif node.op == "call_function" and _is_pure(node) and all(each in values for each in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)
            known = [each for each in node.all_input_nodes if each in origins]
            if known:
                largest = max(known, key=sizes.__getitem__)
                origins[node], sizes[node] = origins[largest], sizes[largest]
    return values, origins


def _is_pure(node: torch.fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    drawn = torch.Tag.nondeterministic_seeded in node.target.tags
    if node.target.namespace == "quantized_decomposed":
        return False  # how a weight is quantised is told of its layer
    return not drawn and not node.target._schema.is_mutable and "val" in node.meta


def _replaced(graph: Any, values: Mapping[torch.fx.Node, Any]) -> Sequence[Any]:
    """The evaluated nodes whose values are read by others, in the graph's order."""
    kept: set[Any] = set()
    found = []
    for node in reversed(graph.nodes):
        if node.op == "placeholder" or (node in values and not any(user in kept for user in node.users)):
            continue
        if node in values and _can_be_held(node, values[node]):
            found.append(node)
        else:
            kept.add(node)
    return found[::-1]


def _can_be_held(node: torch.fx.Node, value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.dtype not in _DTYPES or value.layout is not torch.strided:
        return False
    spread = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in _SPREADS
    return value.numel() <= _LARGE or not spread
