"""TVM's ONNX importer with layer names on the variables, and with the operators that it gets wrong or lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from pconvgen.errors import PconvgenError
from pconvgen.frontend.onnx_resize import resize
from pconvgen.frontend.spec import last_line
from pconvgen.tvm_compat import constant_value, dtype_of, shape_of

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a weight."""

Convert = Callable[[Any, dict[str, Any]], Any]


class Importer(ONNXGraphImporter):
    """One import. Raises PconvgenError with the name of the node that TVM cannot convert.

    Parameters
    ----------
    shapes: input name -> static shape.
    variables: name of a node that has a weight -> name for the variable of its result before the bias.
    source: for errors.
    """

    def __init__(self, shapes: dict[str, list[int]], variables: Mapping[str, str], source: str) -> None:
        super().__init__(shapes, {})
        self._variables = variables
        self._source = source

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        node = attrs["tvm_custom"]["name"]
        try:
            if op_name in WEIGHTED:
                return self._weighted(op_name, inputs, attrs, opset, self._variables[node])
            if op_name == "Resize":
                result = resize(inputs, attrs, self.bb.emit)
            else:
                convert = CONVERTERS.get(op_name)
                result = None if convert is None else convert(inputs, attrs)
            if result is not None:
                return self.bb.normalize(result)
            return super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            raise PconvgenError(
                f"TVM cannot import this {op_name}",
                file=self._source,
                layer=node,
                found=last_line(error),
                remedy="replace the operator in the model, or export it with another exporter or opset",
            ) from error

    def _weighted(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int, name: str) -> Any:
        """The operator without its bias, bound to `name`; then the bias."""
        if op_name == "ConvTranspose":
            _explicit_output(inputs, attrs)
        if op_name == "Conv":
            _explicit_padding(inputs, attrs)
        bias = inputs[2]
        bare = type(inputs)(list(inputs)[:2])
        result = self.bb.emit(super()._convert_operator(op_name, bare, attrs, opset), name)
        if bias is None:
            return result
        if op_name == "Gemm":
            beta = attrs.get("beta", 1.0)
            bias = bias if beta == 1.0 else self.bb.emit(relax.op.multiply(bias, relax.const(beta, dtype_of(bias))))
        else:
            spatial = len(result.ty.shape) - 2
            bias = self.bb.emit(relax.op.reshape(bias, [1, -1] + [1] * spatial))
        return self.bb.normalize(relax.op.add(result, bias))


def _explicit_padding(inputs: Any, attrs: dict[str, Any]) -> None:
    """Replace auto_pad of a convolution by pads."""
    mode = attrs.pop("auto_pad", b"NOTSET").decode()
    kernel = (shape_of(inputs[1]) or ())[2:]
    if mode == "VALID":
        attrs["pads"] = [0] * (2 * len(kernel))
    if not mode.startswith("SAME"):
        return
    strides = attrs.get("strides", [1] * len(kernel))
    dilations = attrs.get("dilations", [1] * len(kernel))
    before, after = [], []
    for size, taps, stride, rate in zip((shape_of(inputs[0]) or ())[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * rate + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attrs["pads"] = before + after


def _explicit_output(inputs: Any, attrs: dict[str, Any]) -> None:
    """Replace auto_pad and output_shape of a transposed convolution by pads and output_padding."""
    mode = attrs.pop("auto_pad", b"NOTSET").decode()
    sizes, kernel = (shape_of(inputs[0]) or ())[2:], (shape_of(inputs[1]) or ())[2:]
    strides = attrs.get("strides", [1] * len(kernel))
    dilations = attrs.get("dilations", [1] * len(kernel))
    behind = list(attrs.get("output_padding", [0] * len(kernel)))
    wanted = attrs.pop("output_shape", None)
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        if mode == "VALID":
            attrs["pads"] = [0] * (2 * len(kernel))
        return
    before, after = [], []
    rows = zip(sizes, kernel, strides, dilations, list(wanted)[-len(kernel) :], strict=True)
    for axis, (size, taps, stride, rate, output) in enumerate(rows):
        surplus = (size - 1) * stride + (taps - 1) * rate + 1 + behind[axis] - output
        behind[axis] += max(-surplus, 0)
        small, large = max(surplus, 0) // 2, -(-max(surplus, 0) // 2)
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attrs["pads"], attrs["output_padding"] = before + after, behind


def _bound(value: Any, missing: float) -> float | None:
    if value is None:
        return missing
    array = constant_value(value)
    return None if array is None else float(array)


def _clip(inputs: Any, _attrs: dict[str, Any]) -> Any | None:
    low, high = _bound(inputs[1], -np.inf), _bound(inputs[2], np.inf)
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return None
    if (low, high) == (0, np.inf):
        return relax.op.nn.relu(inputs[0])
    return relax.op.clip(inputs[0], low, high)


def _dropout(inputs: Any, attrs: dict[str, Any]) -> Any | None:
    return inputs[0] if attrs["tvm_custom"]["num_outputs"] == 1 else None


def _hard_sigmoid(inputs: Any, attrs: dict[str, Any]) -> Any | None:
    if abs(attrs.get("alpha", 0.2) - 1 / 6) > 1e-6 or attrs.get("beta", 0.5) != 0.5:
        return None
    data = inputs[0]
    three, six = (relax.const(number, dtype_of(data)) for number in (3.0, 6.0))
    return relax.op.divide(relax.op.clip(relax.op.add(data, three), 0, 6), six)


def _pad(inputs: Any, attrs: dict[str, Any]) -> Any | None:
    if attrs.get("mode", b"constant") != b"constant" or inputs[1] is None or inputs[3] is not None:
        return None
    pads, fill = constant_value(inputs[1]), _bound(inputs[2], 0.0)
    if pads is None or fill is None or pads.min() < 0:
        return None
    rank = len(pads) // 2
    widths = [int(pads[index + rank * side]) for index in range(rank) for side in (0, 1)]
    return relax.op.nn.pad(inputs[0], widths, "constant", fill)


def _identity(inputs: Any, _attrs: dict[str, Any]) -> Any:
    return inputs[0]


CONVERTERS: dict[str, Convert] = {
    "Clip": _clip,  # imported as isnan, where and two anonymous kernels, which no pattern matches
    "Dropout": _dropout,  # imported as a random dropout
    "HardSigmoid": _hard_sigmoid,  # one spelling: the one that torch's hard sigmoid gets
    "Identity": _identity,  # no operator at all
    "Pad": _pad,  # imported as an anonymous kernel
}
