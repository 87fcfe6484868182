"""What a node of an exported program is called with."""

from __future__ import annotations

from typing import Any


def arguments(node: Any) -> dict[str, Any]:
    """All arguments of a call of an ATen operator by name, defaults filled in."""
    named = {}
    for index, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        named[argument.name] = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)
    return named


def expression(importer: Any, node: Any) -> Any:
    return None if node is None else importer.env[node]
