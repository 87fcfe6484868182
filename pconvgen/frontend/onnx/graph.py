"""The nodes of an ONNX graph: which values are constant, and to which layers of the model nodes belong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pconvgen.frontend.spec import unique

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


@dataclass(frozen=True, eq=False)
class GraphValues:
    """The values of a graph by name.

    Attributes
    ----------
    weights: initializers.
    produced: value -> the node that produces it.
    constants: weights, and what nodes compute from nothing else.
    """

    weights: Mapping[str, Any]
    produced: Mapping[str, Any]
    constants: frozenset[str]


def values_of(graph: GraphProto) -> GraphValues:
    """The values of a graph, whose nodes ONNX sorts by what they read."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    produced = {output: node for node in graph.node for output in node.output}
    constants = set(weights)
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    return GraphValues(weights, produced, frozenset(constants))


def name_nodes(graph: GraphProto) -> None:
    """Give every node a unique name: the importer hands only the name to its converters."""
    taken: dict[str, None] = {}
    for node in graph.node:
        node.name = unique(node.name or f"{node.op_type}_of_{node.output[0]}", taken)
        taken[node.name] = None


def layer_of(node: NodeProto, values: GraphValues) -> str:
    """The module that the weight's name tells, else the one that the node's name tells, else the node's name.

    "layer1.0.conv2.weight" and "/layer1/layer1.0/conv2/Conv" both tell "layer1.0.conv2". A second operand that depends
    on the model's inputs is no weight, whatever weights it was computed with.
    """
    pending = [name for name in node.input[1:2] if name in values.constants]
    seen = set(pending)
    for name in pending:
        layer, _, parameter = name.rpartition(".")
        if name in values.weights and layer and parameter.startswith("weight") and "::" not in name:
            return layer.partition(".parametrizations.")[0]
        behind = values.produced[name].input if name in values.produced else ()
        pending += [other for other in behind if other not in seen]
        seen.update(behind)
    scopes: list[str] = []
    for scope in node.name.split("/")[1:-1]:
        if scopes and scope.startswith(scopes[-1] + "."):
            scopes.pop()
        scopes.append(scope)
    return ".".join(scopes) or node.name
