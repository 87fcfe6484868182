"""Arithmetic of integers and booleans, where it is not that of floats."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.floats import name_of
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def _operand(value: Expr, dtype: str, importer: ExportedProgramImporter) -> Expr:
    """A tensor, whose type is right already (see `promote`), or a number as one."""
    return importer.env[value] if hasattr(value, "meta") else relax.const(value, dtype)


def clamp(node: Node, importer: ExportedProgramImporter) -> Expr:
    args, value = arguments(node), node.meta["val"]
    if value.dtype.is_floating_point:
        return importer._clamp(node)
    result = importer.env[args["self"]]
    for bound, extreme in ((args["min"], relax.op.maximum), (args["max"], relax.op.minimum)):
        if bound is not None:
            result = importer.block_builder.emit(extreme(result, _operand(bound, name_of(value.dtype), importer)))
    return result


def divide(node: Node, importer: ExportedProgramImporter) -> Expr:
    """Division whose quotient is rounded down, or towards zero, or not at all."""
    args, emit = arguments(node), importer.block_builder.emit
    dtype = name_of(node.meta["val"].dtype)
    left, right = (_operand(args[name], dtype, importer) for name in ("self", "other"))
    if args["rounding_mode"] == "floor":
        return emit(relax.op.floor_divide(left, right))
    quotient = emit(relax.op.divide(left, right))
    floats = node.meta["val"].dtype.is_floating_point
    return emit(relax.op.trunc(quotient)) if args["rounding_mode"] == "trunc" and floats else quotient


def multiply(node: Node, importer: ExportedProgramImporter) -> Expr:
    """The product of booleans is a conjunction."""
    if name_of(node.meta["val"].dtype) != "bool":
        return importer._binary_op(relax.op.multiply, operator.mul)(node)
    left, right = (_operand(value, "bool", importer) for value in node.args)
    return importer.block_builder.emit(relax.op.logical_and(left, right))
