"""Programs without in-place operators: by a look at the graph where that is enough, by tracing it again elsewhere.

before: norm = batch_norm(x, w, b, mean, variance, training=False); relu = relu_(norm); flat = flatten(relu, 1)
after:  norm = _native_batch_norm_legit_no_training(x, w, b, mean, variance)[0]; relu = relu(norm)
        flat = view(relu, shape)

PyTorch's own way (`ExportedProgram.run_decompositions`) takes as long as exporting the model did.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._C import DispatchKey

from pconvgen.frontend.torch.calls import arguments

aten = torch.ops.aten

Table = Mapping[Any, Callable[..., Any]]


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program without in-place operators; `program` stays as it is."""
    graph = _copy(program.graph)
    _leave_out_dropout(graph)
    plain = _copy(graph)
    if _LIES is None or not _rewrite(plain):
        return retraced(_with(program, graph), {})
    plain.eliminate_dead_code()
    return _with(program, plain)


def _copy(graph: torch.fx.Graph) -> Any:
    copied = copy.deepcopy(graph)
    for given, node in zip(graph.nodes, copied.nodes, strict=True):
        node.name = given.name  # of what is called as one of Python's functions, the copy has another
    return copied


def _with(program: torch.export.ExportedProgram, graph: torch.fx.Graph) -> Any:
    graph.lint()
    module = torch.fx.GraphModule(program.graph_module, graph)
    return program._update(module, copy.deepcopy(program.graph_signature))


def _leave_out_dropout(graph: torch.fx.Graph) -> None:
    """Has readers of what dropout returns, which is its argument, read that: PyTorch would take it for a copy.

    Where it is a result of the model it is taken at the end, when nothing writes to it any more.
    """
    end = next(node for node in graph.nodes if node.op == "output")
    for node in graph.find_nodes(op="call_function", target=aten.dropout.default):
        found = arguments(node)
        if not found["train"]:
            node.replace_all_uses_with(found["input"], delete_user_cb=lambda user: user is not end)
            if node.users:
                end.prepend(node)
            else:
                graph.erase_node(node)


def retraced(program: torch.export.ExportedProgram, table: Table) -> torch.export.ExportedProgram:
    """A functional program in which the operators of `table` are decomposed as it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(dict(table))


def _rewrite(graph: torch.fx.Graph) -> bool:
    """Replaces what is not functional; False where that takes more than a look at one operator."""
    given = {node: (number, node.target) for number, node in enumerate(graph.nodes) if node.op == "call_function"}
    for node in [node for node in graph.nodes if node.op == "call_function"]:
        if node.target is operator.getitem:
            continue
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
            return False
        rule = _RULES.get(node.target)
        if rule is not None:
            if not rule(node):
                return False
        elif node.target._schema.is_mutable:
            if not _out_of_place(node, given):
                return False
        elif not _stays(node.target):
            return False
    return all(node.op in ("placeholder", "call_function", "output") for node in graph.nodes)


def _stays(target: Any) -> bool:
    """Whether tracing a program again leaves an operator as it is: not those that may be views of composed ones, nor
    those that PyTorch computes in Python."""
    if _LIES in target.tags or not target._schema.returns:
        return False
    if target.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd):
        return not _aliases(target)
    return DispatchKey.Autograd not in target.py_kernels


def _aliases(target: Any) -> bool:
    return any(each.alias_info for each in (*target._schema.arguments, *target._schema.returns))


def _is_fresh(target: Any) -> bool:
    """Whether nothing but its result lies in the memory of the result of an operator of the model.

    Not what getitem takes out, which may be a part of a view; but what was an in-place operator is none any more.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target is aten.batch_norm.default or target._schema.is_mutable:
        return True
    return _LIES not in target.tags and not _aliases(target)


def _out_of_place(node: torch.fx.Node, given: Mapping[torch.fx.Node, tuple[int, torch.fx.Node]]) -> bool:
    """Makes of an in-place operator one that is not, where nobody else can see what it writes to.

    given: place and operator of each call in the model.
    """
    name, overload = node.target._schema.name.removeprefix("aten::"), node.target._overloadname
    packet = getattr(aten, name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or overload not in packet.overloads() or not node.args:
        return False
    base = node.args[0]
    if base not in given or not _is_fresh(given[base][1]):
        return False
    others = [user for user in base.users if user is not node]
    if not all(user in given and given[user][0] < given[node][0] and _is_fresh(given[user][1]) for user in others):
        return False
    kinds = {each.meta["val"].dtype for each in node.all_input_nodes}
    if len(kinds) != 1 or not base.meta["val"].dtype.is_floating_point:
        return False  # the result may be of another type than what it is written to
    node.target = getattr(packet, overload)
    return True


def _batch_norm(node: torch.fx.Node) -> bool:
    given = arguments(node)
    if given["training"] or given["running_mean"] is None or given["running_var"] is None:
        return False
    names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
    with node.graph.inserting_before(node):
        norm = node.graph.call_function(_NORM, tuple(given[name] for name in names))
    none = node.meta["val"].new_empty(0)
    norm.meta = {**node.meta, "val": (node.meta["val"], none, none)}
    node.target, node.args, node.kwargs = operator.getitem, (norm, 0), {}
    return True


def _dropout(node: torch.fx.Node) -> bool:
    """Of those that are left, which are results of the model."""
    found = arguments(node)
    node.target, node.args, node.kwargs = aten.clone.default, (found["input"],), {}
    return not found["train"]


def _view(node: torch.fx.Node) -> bool:
    data, shape = node.args[0], list(node.meta["val"].shape)
    if not all(isinstance(size, int) for size in shape):
        return False
    try:
        data.meta["val"].view(shape)
        target = aten.view.default
    except (RuntimeError, ValueError):  # its strides do not allow for it
        with node.graph.inserting_before(node):
            copied = node.graph.call_function(aten.clone.default, (data,), {"memory_format": torch.contiguous_format})
        copied.meta = {**node.meta, "val": data.meta["val"].contiguous()}
        data, target = copied, aten._unsafe_view.default
    node.target, node.args, node.kwargs = target, (data, shape), {}
    return True


def _lift(node: torch.fx.Node) -> bool:
    node.target = aten.clone.default
    return True


def _contiguous(node: torch.fx.Node) -> bool:
    given = arguments(node)
    memory = {"memory_format": given["memory_format"] or torch.contiguous_format}
    node.target, node.args, node.kwargs = aten.clone.default, (given["self"],), memory
    return True


def _chunk(node: torch.fx.Node) -> bool:
    given = arguments(node)
    size = given["self"].meta["val"].shape[given["dim"]]
    if not isinstance(size, int) or size == 0:
        return False
    node.target, node.kwargs = aten.split.Tensor, {}
    node.args = (given["self"], -(-size // given["chunks"]), given["dim"])
    return True


_LIES = getattr(torch.Tag, "maybe_aliasing_or_mutating", None)
"""The mark of operators whose schema hides that they return views; without it every program is traced again."""
_NORM = aten._native_batch_norm_legit_no_training.default
_RULES: dict[Any, Callable[[Any], bool]] = {
    aten.batch_norm.default: _batch_norm,
    aten.chunk.default: _chunk,
    aten.contiguous.default: _contiguous,
    aten.dropout.default: _dropout,
    aten.flatten.using_ints: _view,
    aten.lift_fresh_copy.default: _lift,
    aten.reshape.default: _view,
}
"""Operators of one other: changes a call of one, or returns False where it is another one."""
