"""The operators that PT2E quantisation leaves in a program: numbers are rounded as it says, and computed in float32."""

from __future__ import annotations

import importlib
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.convolutions import LAYER_META
from pconvgen.frontend.torch.floats import name_of
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

_DEQUANTISE = ("dequantize_per_tensor.default", "dequantize_per_channel.default")
_MOVES = ("permute.default", "t.default", "transpose.int", "view.default", "reshape.default")


def register() -> None:
    """Makes the operators known to torch, which otherwise cannot read a program with them."""
    with suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch.ao.quantization.fx._decomposed")


def quantised_layers(program: ExportedProgram) -> list[str] | None:
    """The variables of layers whose weights are quantised; None when the program quantises nothing."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    if not any("quantized_decomposed" in str(node.target) for node in calls):
        return None
    found = []
    for node in calls:
        if LAYER_META in node.meta:
            weight = node.args[1]
            while getattr(weight.target, "__name__", "") in _MOVES:
                weight = weight.args[0]
            if getattr(weight.target, "__name__", "") in _DEQUANTISE:
                found.append(node.meta[LAYER_META])
    return found


def quantize(node: Node, importer: ExportedProgramImporter) -> Expr:
    """round(x / scale) + zero point between the limits; the division is a product with the inverse, as in PyTorch."""
    args, emit = arguments(node), importer.block_builder.emit
    scale, zero = _parameters(node, importer)
    inverse = emit(relax.op.divide(relax.const(1.0, "float32"), scale))
    rounded = emit(relax.op.round(emit(relax.op.multiply(importer.env[args["input"]], inverse))))
    moved = rounded if zero is None else emit(relax.op.add(rounded, emit(relax.op.astype(zero, "float32"))))
    limited = emit(relax.op.clip(moved, args["quant_min"], args["quant_max"]))
    return emit(relax.op.astype(limited, name_of(args["dtype"])))


def dequantize(node: Node, importer: ExportedProgramImporter) -> Expr:
    """(x - zero point) * scale."""
    args, emit = arguments(node), importer.block_builder.emit
    scale, zero = _parameters(node, importer)
    result = emit(relax.op.astype(importer.env[args["input"]], "float32"))
    if zero is not None:
        result = emit(relax.op.subtract(result, emit(relax.op.astype(zero, "float32"))))
    return emit(relax.op.multiply(result, scale))


def _parameters(node: Node, importer: ExportedProgramImporter) -> tuple[Expr, Expr]:
    """Scale and zero point, in shapes that broadcast; None for no zero point."""
    args = arguments(node)
    if "axis" not in args:
        return relax.const(args["scale"], "float32"), relax.const(args["zero_point"], "int32")
    rank = node.meta["val"].dim()
    shape = [-1 if axis == args["axis"] % rank else 1 for axis in range(rank)]
    found = [args["scales"], args["zero_points"]]
    emit = importer.block_builder.emit
    scale, zero = (None if each is None else emit(relax.op.reshape(importer.env[each], shape)) for each in found)
    return emit(relax.op.astype(scale, "float32")), zero
