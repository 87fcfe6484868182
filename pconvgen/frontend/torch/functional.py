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


def functional(program: Any) -> Any:
    """The same program without in-place operators; `program` stays as it is."""
    graph = copy.deepcopy(program.graph)
    for given, node in zip(program.graph.nodes, graph.nodes, strict=True):
        node.name = given.name  # of what is called as one of Python's functions, the copy has another
    if _LIES is None or not _rewrite(graph):
        return retraced(program, {})
    graph.eliminate_dead_code()
    graph.lint()
    module = torch.fx.GraphModule(program.graph_module, graph)
    return program._update(module, copy.deepcopy(program.graph_signature))


def retraced(program: Any, table: Table) -> Any:
    """A functional program in which the operators of `table` are decomposed as it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(dict(table))


def _rewrite(graph: Any) -> bool:
    """Replaces what is not functional; False where that takes more than a look at one operator."""
    places = {node: number for number, node in enumerate(graph.nodes)}
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
            if not _out_of_place(node, places):
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


def _is_fresh(node: Any) -> bool:
    """Whether nothing but the result of `node` lies in its memory. What getitem takes out may be part of a view."""
    if node.op != "call_function" or node.target is operator.getitem:
        return node.op == "call_function" and node.args[0].target is _NORM
    return not _aliases(node.target)


def _out_of_place(node: Any, places: Mapping[Any, int]) -> bool:
    """Makes of an in-place operator one that is not, where nobody else can see what it writes to."""
    name, overload = node.target._schema.name.removeprefix("aten::"), node.target._overloadname
    packet = getattr(aten, name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or overload not in packet.overloads() or not node.args:
        return False
    base = node.args[0]
    if not isinstance(base, torch.fx.Node) or not _is_fresh(base):
        return False
    others = [user for user in base.users if user is not node]
    if not all(user in places and places[user] < places[node] and _is_fresh(user) for user in others):
        return False
    kinds = {each.meta["val"].dtype for each in node.all_input_nodes}
    if len(kinds) != 1 or not base.meta["val"].dtype.is_floating_point:
        return False  # the result may be of another type than what it is written to
    node.target = getattr(packet, overload)
    return True


def _batch_norm(node: Any) -> bool:
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


def _dropout(node: Any) -> bool:
    given = arguments(node)
    node.target, node.args, node.kwargs = aten.clone.default, (given["input"],), {}
    return not given["train"]


def _view(node: Any) -> bool:
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


def _lift(node: Any) -> bool:
    node.target = aten.clone.default
    return True


def _contiguous(node: Any) -> bool:
    given = arguments(node)
    memory = {"memory_format": given["memory_format"] or torch.contiguous_format}
    node.target, node.args, node.kwargs = aten.clone.default, (given["self"],), memory
    return True


def _chunk(node: Any) -> bool:
    given = arguments(node)
    size = given["self"].meta["val"].shape[given["dim"]]
    if not isinstance(size, int) or size == 0:
        return False
    node.target, node.kwargs = aten.split.Tensor, {}
    node.args = (given["self"], -(-size // given["chunks"]), given["dim"])
    return True


_LIES = getattr(torch.Tag, "maybe_aliasing_or_mutating", None)
"""The mark of operators whose schema hides that they return views; PyTorch has it since 2.7."""
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
