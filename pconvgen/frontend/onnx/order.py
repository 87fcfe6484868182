"""The order of an ONNX graph's nodes: some tools append nodes at its end, and runtimes sort them."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def sort_nodes(graph: GraphProto) -> bool:
    """Moves nodes, in place, behind those that they read from, where they are not; whether any was moved.

    A graph in order, or with a cycle, stays as it is.
    """
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = {
        index: [maker[name] for name in names_read(node) if name in maker and maker[name] != index]
        for index, node in enumerate(graph.node)
    }
    if all(earlier < index for index, before in reads.items() for earlier in before):
        return False
    try:
        order = list(TopologicalSorter(reads).static_order())
    except CycleError:
        return False
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)
    return True


def names_read(node: NodeProto) -> Iterator[str]:
    """What a node reads, also inside of its graphs."""
    yield from node.input
    for entry in node.attribute:
        for inner in (entry.g, *entry.graphs):
            for each in inner.node:
                yield from names_read(each)
