"""Other floats than float32 in an exported program: all of it is computed in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pconvgen.frontend.spec import as_float32

HALVES = frozenset({torch.float16, torch.bfloat16})
_CHECKS = ("_assert_tensor_metadata.default", "_guards_fn")


def name_of(dtype: torch.dtype) -> str:
    """NumPy's name of a type, such as float32."""
    return str(dtype).removeprefix("torch.")


def other_floats(program: torch.export.ExportedProgram, inputs: Mapping[str, torch.dtype]) -> frozenset[torch.dtype]:
    """The floats of a program that are to become float32: halves anywhere, float64 in inputs and weights.

    What computes positions in float64 between them stays as it is.
    """
    values = [node.meta.get("val") for node in program.graph.nodes]
    anywhere = {value.dtype for value in pytree.tree_leaves(values) if isinstance(value, torch.Tensor)}
    outside = {*inputs.values(), *(tensor.dtype for tensor in program.state_dict.values())}
    return (frozenset(anywhere) & HALVES) | (frozenset(outside) & {torch.float64})


def in_float32(program: torch.export.ExportedProgram, others: frozenset[torch.dtype]) -> torch.export.ExportedProgram:
    """The same network as a module whose weights, inputs and casts are float32 where they were `others`."""
    module = copy.deepcopy(program.module())
    for node in list(module.graph.nodes):
        if getattr(node.target, "__name__", node.target) in _CHECKS:
            module.graph.erase_node(node)
            continue
        node.args, node.kwargs = pytree.tree_map(
            lambda value: torch.float32 if isinstance(value, torch.dtype) and value in others else value,
            (node.args, node.kwargs),
        )
        if node.op == "get_attr":
            _narrow(module, node.target, others)
    module.recompile()
    return module


def _narrow(module: Any, target: str, others: frozenset[torch.dtype]) -> None:
    path, _, name = target.rpartition(".")
    owner = module.get_submodule(path)
    tensor = getattr(owner, name)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in others:
        return
    value = torch.from_numpy(as_float32(tensor.detach().double().numpy()))
    if isinstance(tensor, torch.nn.Parameter):
        setattr(owner, name, torch.nn.Parameter(value, False))
    elif name in owner._buffers:
        owner._buffers[name] = value
    else:
        setattr(owner, name, value)
