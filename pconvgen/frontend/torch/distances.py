"""Distances and products of pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tvm import relax

from pconvgen.frontend.torch.calls import arguments, expression
from pconvgen.tvm_compat.relax import Expr, shape_of

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter


def bilinear(node: Node, importer: ExportedProgramImporter) -> Expr:
    """y[r, o] = sum over i and j of left[r, i] weight[o, i, j] right[r, j], plus bias."""
    args, emit = arguments(node), importer.block_builder.emit
    left, right, weight = (importer.env[args[name]] for name in ("input1", "input2", "weight"))
    filters, first, second = shape_of(weight) or ()
    rows = list(shape_of(left) or ())[:-1]
    matrix = emit(relax.op.reshape(emit(relax.op.permute_dims(weight, [1, 0, 2])), (first, filters * second)))
    product = emit(relax.op.reshape(emit(relax.op.matmul(left, matrix)), (*rows, filters, second)))
    result = emit(relax.op.sum(emit(relax.op.multiply(product, emit(relax.op.expand_dims(right, -2)))), [-1]))
    bias = expression(importer, args["bias"])
    return result if bias is None else emit(relax.op.add(result, bias))


def distances(node: Node, importer: ExportedProgramImporter) -> Expr:
    """cdist: the p-norm of the difference of each row of one matrix and each of the other."""
    args, emit = arguments(node), importer.block_builder.emit
    left, right = (importer.env[args[name]] for name in ("x1", "x2"))
    p = float(args["p"])
    rows = emit(relax.op.expand_dims(left, -2)), emit(relax.op.expand_dims(right, -3))
    apart = emit(relax.op.abs(emit(relax.op.subtract(*rows))))
    if p == math.inf:
        return emit(relax.op.max(apart, [-1]))
    if p == 0:
        zero = relax.const(0.0, str(apart.ty.dtype))
        return emit(relax.op.sum(emit(relax.op.astype(emit(relax.op.not_equal(apart, zero)), "float32")), [-1]))
    if p == 1:
        return emit(relax.op.sum(apart, [-1]))
    if p == 2:
        return emit(relax.op.sqrt(emit(relax.op.sum(emit(relax.op.multiply(apart, apart)), [-1]))))
    powers = emit(relax.op.power(apart, relax.const(p, str(apart.ty.dtype))))
    return emit(relax.op.power(emit(relax.op.sum(powers, [-1])), relax.const(1 / p, str(apart.ty.dtype))))
