"""What a node of an exported program is called with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of a call of an ATen operator by name, defaults filled in."""
    named = {}
    for index, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        named[argument.name] = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)
    return named


def expression(importer: ExportedProgramImporter, node: Node) -> Expr:
    return None if node is None else importer.env[node]
