"""Conversions of ONNX operators that TVM's importer gets wrong, lacks, or spells in several ways.

A converter gets the inputs, the attributes, and emit(expression), which binds to a variable what is used twice.
It returns None for what TVM does well. The reason for each row of CONVERTERS stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import get_type

from pconvgen.errors import UnsupportedError
from pconvgen.frontend.onnx.elementwise import bound, clip, dropout, is_inf, modulo
from pconvgen.frontend.onnx.norms import (
    batch_normalization,
    group_normalization,
    instance_normalization,
    layer_normalization,
    mean_variance_normalization,
)
from pconvgen.frontend.onnx.pooling import lp_pool, pool
from pconvgen.frontend.onnx.powers import celu, lp_normalization, power_of, without_axes
from pconvgen.frontend.onnx.resize import resize
from pconvgen.frontend.onnx.sampling import affine_grid, grid_sample, roi_align
from pconvgen.frontend.onnx.variadic import chain, mean
from pconvgen.tvm_compat.relax import Expr, constant_value, dtype_of, shape_of
from pconvgen.tvm_compat.rewriting import Emit

Convert = Callable[[Sequence[Expr], dict[str, Any], Emit], Expr | None]


def _cast(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr | None:
    data = inputs[0]
    return data if isinstance(data, relax.Var) and dtype_of(data) == get_type(attrs["to"]) else None


def _hard_sigmoid(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr | None:
    if abs(attrs.get("alpha", 0.2) - 1 / 6) > 1e-6 or attrs.get("beta", 0.5) != 0.5:
        return None
    data = inputs[0]
    three, six = (relax.const(number, dtype_of(data)) for number in (3.0, 6.0))
    return relax.op.divide(relax.op.clip(relax.op.add(data, three), 0, 6), six)


def _pad(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr | None:
    if attrs.get("mode", b"constant") != b"constant" or inputs[1] is None or inputs[3] is not None:
        return None
    pads, fill = constant_value(inputs[1]), bound(inputs[2], 0.0)
    if pads is None or fill is None or pads.min() < 0:
        return None
    rank = len(pads) // 2
    widths = [int(pads[index + rank * side]) for index in range(rank) for side in (0, 1)]
    return relax.op.nn.pad(inputs[0], widths, "constant", fill)


def _thresholded_relu(inputs: Sequence[Expr], attrs: dict[str, Any], emit: Emit) -> Expr:
    data = inputs[0]
    threshold, zero = (relax.const(number, dtype_of(data)) for number in (attrs.get("alpha", 1.0), 0.0))
    return relax.op.where(emit(relax.op.greater(data, threshold)), data, zero)


def _sign(inputs: Sequence[Expr], _attrs: dict[str, Any], emit: Emit) -> Expr | None:
    data = inputs[0]
    if not dtype_of(data).startswith("float"):
        return None
    return relax.op.where(emit(relax.op.isnan(data)), data, emit(relax.op.sign(data)))


def _non_max_suppression(_inputs: Sequence[Expr], _attrs: dict[str, Any], _emit: Emit) -> None:
    raise UnsupportedError("how many boxes are left depends on the data; export the model without it")


def _space_to_depth(inputs: Sequence[Expr], attrs: dict[str, Any], _emit: Emit) -> Expr | None:
    if attrs.get("mode", b"DCR") != b"CRD":
        return None
    block = attrs["blocksize"]
    batch, channels, height, width = shape_of(inputs[0]) or ()
    blocks = relax.op.reshape(inputs[0], (batch, channels, height // block, block, width // block, block))
    blocks = relax.op.permute_dims(blocks, [0, 1, 3, 5, 2, 4])
    return relax.op.reshape(blocks, (batch, channels * block * block, height // block, width // block))


def _top_k(inputs: Sequence[Expr], _attrs: dict[str, Any], _emit: Emit) -> None:
    if dtype_of(inputs[0]).startswith("uint") or dtype_of(inputs[0]) == "bool":
        raise UnsupportedError(f"the largest numbers of type {dtype_of(inputs[0])}")


def _identity(inputs: Sequence[Expr], _attrs: dict[str, Any], _emit: Emit) -> Expr:
    return inputs[0]


CONVERTERS: dict[str, Convert] = {
    "AffineGrid": affine_grid,  # inexact at the corners
    "AveragePool": pool,  # auto_pad is wrong where the stride does not divide the size
    "BatchNormalization": batch_normalization,  # wrong in training mode: by the running statistics
    "Cast": _cast,  # no operator at all where the type stays
    "Celu": celu,  # lacking
    "Clip": clip,  # imported as isnan, where and two anonymous kernels, which no pattern matches
    "Dropout": dropout,  # imported as a random dropout, with a mask of numbers
    "GridSample": grid_sample,  # takes newer names of modes for others
    "GroupNormalization": group_normalization,  # wrong where a group's mean is large; in float16 sums of it
    "HardSigmoid": _hard_sigmoid,  # one spelling: the one that torch's hard sigmoid gets
    "Identity": _identity,  # no operator at all
    "InstanceNormalization": instance_normalization,  # wrong where a plane's mean is large
    "IsInf": is_inf,  # takes both signs whatever the attributes say
    "LayerNormalization": layer_normalization,  # wrong: zeros for the further results
    "LpNormalization": lp_normalization,  # lacking
    "LpPool": lp_pool,  # wrong with ceil_mode, and auto_pad as above
    "MaxPool": pool,  # auto_pad as above, and indices that are zeros
    "Max": partial(chain, operator=relax.op.maximum),  # imported as a stack and a reduction
    "Mean": mean,  # likewise
    "MeanVarianceNormalization": mean_variance_normalization,  # wrong where the mean is large
    "Min": partial(chain, operator=relax.op.minimum),  # likewise
    "Mod": modulo,  # NaN where the divisor is infinite
    "NonMaxSuppression": _non_max_suppression,  # imported with a shape that its results do not have
    "Pad": _pad,  # imported as an anonymous kernel
    "Pow": power_of,  # refused where the exponent has another type
    "ReduceL1": without_axes,  # nothing is computed of each element where there are no axes
    "ReduceL2": without_axes,  # likewise
    "ReduceLogSum": without_axes,  # likewise
    "ReduceSumSquare": without_axes,  # likewise
    "Resize": resize,  # reads other places than the model, or ignores an attribute
    "RoiAlign": roi_align,  # takes half a pixel off before scaling
    "Sign": _sign,  # zero for NaN
    "SpaceToDepth": _space_to_depth,  # takes one mode for the other
    "Sum": partial(chain, operator=relax.op.add),  # imported as a stack and a reduction
    "ThresholdedRelu": _thresholded_relu,  # a product with 0 or 1: NaN for minus infinity
    "TopK": _top_k,  # fails while it runs where the type is unsigned
}
