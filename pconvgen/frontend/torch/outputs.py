"""What an exported program returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from pconvgen.errors import PconvgenError, PconvgenWarning


@dataclass(frozen=True)
class Output:
    """A tensor that a program returns.

    Attributes
    ----------
    name: "output"; "output_0", ... of a tuple; the keys of a dict; nested ones joined by "_".
    place: among all values that the program returns, None and numbers included.
    dtype: of its elements.
    """

    name: str
    place: int
    dtype: torch.dtype


def outputs_of(program: torch.export.ExportedProgram, source: str) -> list[Output]:
    """The tensors that a program returns, in order; what else it returns is left out with a warning.

    Raises PconvgenError when it returns none.
    """
    kinds = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = []
    for place, (name, kind) in enumerate(zip(_names(program, len(kinds)), kinds, strict=True)):
        if isinstance(kind, TensorArgument):
            found.append(Output(name, place, values[kind.name].dtype))
        else:
            constant = getattr(kind, "value", None)
            warnings.warn(f"{source}: {name} is no tensor but {constant}, left out of the outputs", PconvgenWarning, 4)
    if not found:
        raise PconvgenError(
            "the model returns no tensor",
            file=source,
            found=", ".join(str(getattr(kind, "value", None)) for kind in kinds) or "nothing",
            expected="tensors, or a tuple, list or dict of tensors",
            remedy="return the tensors that it computes, then export again",
        )
    return found


def check_state(program: torch.export.ExportedProgram, source: str) -> None:
    """Raises PconvgenError when an output of a functional program depends on a buffer that it changes.

    Such an output is another one with every call. A counter that nothing reads is no state: a library does without it.
    """
    signature = program.graph_signature
    changed = {spec.target for spec in signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION}
    buffers = {name: target for name, target in signature.inputs_to_buffers.items() if target in changed}
    dependent: dict[torch.fx.Node, str] = {}
    for node in program.graph.nodes:
        if node.name in buffers:
            dependent[node] = buffers[node.name]
        for each in node.all_input_nodes if node.op == "call_function" else ():
            if each in dependent:
                dependent.setdefault(node, dependent[each])
    states = {node.name: target for node, target in dependent.items()}
    for name in signature.user_outputs:
        if isinstance(name, str) and name in states:
            raise PconvgenError(
                f"the model changes its buffer {states[name]}, and what it returns depends on that",
                file=source,
                expected="outputs that depend on the inputs alone",
                remedy="make the state an input and an output of forward(), then export again",
            )


def returning(program: torch.export.ExportedProgram, outputs: list[Output]) -> torch.export.ExportedProgram:
    """`program`, changed to return nothing but `outputs`."""
    signature = program.graph_signature
    user = [index for index, spec in enumerate(signature.output_specs) if spec.kind is OutputKind.USER_OUTPUT]
    dropped = set(user) - {user[output.place] for output in outputs}
    node = next(node for node in program.graph.nodes if node.op == "output")
    node.args = (tuple(value for index, value in enumerate(node.args[0]) if index not in dropped),)
    signature.output_specs[:] = [spec for index, spec in enumerate(signature.output_specs) if index not in dropped]
    return program


def _names(program: torch.export.ExportedProgram, count: int) -> list[str]:
    structure = pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec)
    names = []
    for path, _ in pytree.tree_flatten_with_path(structure)[0]:
        keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        names.append("_".join(keys if path and isinstance(path[0], pytree.MappingKey) else ["output", *keys]))
    return names
