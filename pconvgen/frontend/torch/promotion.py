"""Types of operands as PyTorch promotes them, written into the graph: TVM's operators take operands of one type."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.floats import name_of
from pconvgen.tvm_compat.relax import Expr, dtype_of, op

Converter = Callable[[torch.fx.Node, ExportedProgramImporter], Expr]
"""From a node of a program, whose importer knows the expressions of its operands, to its own expression."""


# Operators whose operands have the type of the result: sums of an integer and a float, roots of an integer.
_LIKE_RESULT = frozenset(
    name
    for names in (
        "add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum atan2 lerp addcmul addcdiv",
        "hypot clamp clamp_min clamp_max clip cat concat stack where hstack vstack dstack masked_fill copysign",
        "sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan sigmoid reciprocal",
        "logaddexp erf sum cumsum prod cumprod mean softmax _softmax log_softmax _log_softmax special_expit",
    )
    for name in names.split()
)
# Operators whose operands have the type that these are promoted to together; their results are booleans.
_LIKE_EACH_OTHER = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
_CONDITIONS = ("condition", "mask")


def promote(program: torch.export.ExportedProgram) -> None:
    """Casts operands, in place.

    before: cat([boxes, index])
    after:  cat([boxes, to(index, float32)])
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        wanted = _wanted(node)
        if wanted is None:
            continue
        conditions = [arguments(node).get(name) for name in _CONDITIONS]
        cast = _caster(graph, node, wanted, conditions)
        node.args, node.kwargs = torch.fx.map_arg((node.args, node.kwargs), cast)
    program.graph_module.recompile()


def _wanted(node: torch.fx.Node) -> torch.dtype | None:
    """The type for the operands of a node; None where they stay as they are."""
    name = node.target.__name__.partition(".")[0]
    if name in _LIKE_RESULT:
        value = node.meta.get("val")
        return value.dtype if isinstance(value, torch.Tensor) else None
    if name in _LIKE_EACH_OTHER:
        left, right = (arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in node.args[:2])
        return torch.result_type(left, right)
    return None


def _caster(
    graph: torch.fx.Graph, node: torch.fx.Node, wanted: torch.dtype, conditions: list[torch.fx.Node]
) -> Callable[[torch.fx.Node], torch.fx.Node]:
    def cast(operand: torch.fx.Node) -> torch.fx.Node:
        value = operand.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype == wanted or operand in conditions:
            return operand
        with graph.inserting_before(node):
            result = graph.call_function(torch.ops.aten._to_copy.default, (operand,), {"dtype": wanted})
        result.meta = {**operand.meta, "val": value.to(wanted)}
        return result

    return cast


def typed(convert: Converter) -> Converter:
    """A converter whose result has the type that PyTorch has found for it."""

    def converted(node: torch.fx.Node, importer: ExportedProgramImporter) -> Expr:
        result = convert(node, importer)
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or not hasattr(getattr(result, "ty", None), "dtype"):
            return result
        dtype = name_of(value.dtype)
        return result if dtype_of(result) == dtype else importer.block_builder.emit(op.astype(result, dtype))

    return converted
