"""Quantised ONNX models as models in floats: weights are dequantised, quantised activations are floats that hold
integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pconvgen.errors import PconvgenError

DOMAINS = ("", "ai.onnx", "com.microsoft")
_LIMITS = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT4: (-8, 7),
}
Array = NDArray[Any]
_PLAIN = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_REFUSED = [number for name, number in onnx.TensorProto.DataType.items() if name.startswith(("FLOAT8", "FLOAT4"))]


def as_floats(model: Any, source: str) -> set[str] | None:
    """Replaces, in place, operators on quantised tensors by operators on floats; the names of dequantised weights.

    None when the model has no such operators.

    before: y = QLinearConv(x, x_scale, x_zero, w, ...)
    after:  y = Clip(Round(Div(Conv(Mul(Sub(Cast(x), x_zero), x_scale), w'), y_scale)) + y_zero, 0, 255)

    Quantised tensors keep their names and their values, which a float holds exactly. Nodes have their names already.
    Raises PconvgenError for what is quantised in a way that is not known.
    """
    graph = model.graph
    if not any(node.op_type in RULES and node.domain in DOMAINS for node in graph.node):
        return None
    rewriter = _Rewriter(model, source)
    for node in list(graph.node):
        rule = RULES.get(node.op_type) if node.domain in DOMAINS else None
        if rule is None:
            rewriter.nodes.append(node)
        else:
            rule(rewriter.of(node), node)
    del graph.node[:]
    graph.node.extend(rewriter.nodes)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return rewriter.weights


def with_weights(graph: Any, variables: Mapping[str, str], weights: Collection[str]) -> list[str]:
    """The variables (of a node's name) whose weight is one of `weights`, also where it is transposed or reshaped."""
    produced = {node.output[0]: node for node in graph.node if node.op_type in ("Transpose", "Reshape", "Identity")}
    found = []
    for node in graph.node:
        if node.name in variables:
            name = node.input[1]
            while name in produced:
                name = produced[name].input[0]
            if name in weights:
                found.append(variables[node.name])
    return found


class _Rewriter:
    """The graph that is made: its nodes in order, and the constants that are known."""

    def __init__(self, model: Any, source: str) -> None:
        self.graph = model.graph
        self.nodes: list[Any] = []
        self.weights: set[str] = set()
        self._model, self._source = model, source
        self._ranks: dict[str, int] | None = None
        self._names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._node: Any = None
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                ((key, value),) = _attributes(node).items()
                if key == "value":
                    self._constants[node.output[0]] = value
                elif key in _PLAIN:
                    self._constants[node.output[0]] = numpy_helper.from_array(np.array(value, _PLAIN[key]))

    def of(self, node: Any) -> _Rewriter:
        """Itself, for the node that is being replaced."""
        self._node = node
        return self

    def refuse(self, message: str, found: object) -> PconvgenError:
        return PconvgenError(
            message,
            file=self._source,
            layer=self._node.name,
            found=found,
            remedy="quantise the model in another way, or export it in float32",
        )

    def value(self, name: str) -> Array | None:
        """The value of a constant; None when it is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def element(self, name: str) -> int | None:
        """The type of a constant's elements; None when it is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else int(tensor.data_type)

    def constant(self, array: Any, name: str = "") -> str:
        """A constant in float32."""
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), name or self._fresh("constant"))
        self.graph.initializer.append(tensor)
        self._constants[tensor.name] = tensor
        return str(tensor.name)

    def emit(self, op: str, *inputs: str, output: str = "", name: str = "", **attributes: Any) -> str:
        """A node, the name of whose output is returned."""
        output = output or self._fresh(op)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name or output, **attributes))
        return output

    def _fresh(self, op: str) -> str:
        name, count = f"{self._node.name}_{op}", 1
        while name in self._names:
            count += 1
            name = f"{self._node.name}_{op}_{count}"
        self._names.add(name)
        return name

    def rank(self, name: str) -> int:
        if self._ranks is None:
            inferred = onnx.shape_inference.infer_shapes(self._model).graph
            values = [*inferred.input, *inferred.value_info, *inferred.output]
            self._ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        if name not in self._ranks:
            raise self.refuse("scales along an axis of a tensor whose rank is not known", name)
        return self._ranks[name]

    def parameter(self, given: str, name: str, axis: int, block: int = 0) -> str | Array | None:
        """A scale or zero point of the tensor `name`, in a shape that broadcasts: an array, the name of one that is
        computed, or None when there is none."""
        if not given:
            return None
        array = self.value(given)
        if array is None:
            return self.emit("Cast", given, to=onnx.TensorProto.FLOAT)
        array, data = array.astype(np.float32), self.value(name)
        if block:
            axis %= array.ndim
            repeated = np.repeat(array, block, axis)
            return repeated if data is None else repeated.take(range(data.shape[axis]), axis)
        if array.size == 1:
            return array.reshape(())
        if array.ndim > 1:
            return array
        behind = -axis - 1 if axis < 0 else (self.rank(name) if data is None else data.ndim) - axis - 1
        return array.reshape(-1, *[1] * behind)

    def operand(self, parameter: str | Array) -> str:
        return parameter if isinstance(parameter, str) else self.constant(parameter)

    def dequantise(
        self, name: str, scale: str, zero: str, *, axis: int = 1, block: int = 0, output: str = "", weight: bool = False
    ) -> str:
        """The floats that a quantised tensor stands for: (x - zero) * scale; `scale` may be "", for 1."""
        data = self.value(name)
        factor, offset = (self.parameter(given, name, axis, block) for given in (scale, zero))
        if data is not None and not isinstance(factor, str) and not isinstance(offset, str):
            floats = data.astype(np.float32)
            floats = floats if offset is None else floats - offset
            floats = floats if factor is None else (floats * factor).astype(np.float32)
            # Without "/" and with the weight's name in front, from which the layer is named.
            output = self.constant(floats, output or ("" if not weight else self._weight_name(name)))
            self.weights.add(output)
            return output
        result = self.emit("Cast", name, to=onnx.TensorProto.FLOAT)
        if offset is not None and (isinstance(offset, str) or offset.any()):
            result = self.emit("Sub", result, self.operand(offset))
        if factor is not None:
            result = self.emit("Mul", result, self.operand(factor))
        return self.emit("Identity", result, output=output) if output else result

    def _weight_name(self, name: str) -> str:
        while (name := f"{name}_dequantised") in self._names:
            pass
        self._names.add(name)
        return name

    def quantise(
        self, name: str, scale: str, zero: str, output: str, *, axis: int = 1, block: int = 0, element: int = 0
    ) -> None:
        """round(x / scale) + zero, within the limits of the type; halves are rounded to the even number."""
        element = element or self.element(zero) or onnx.TensorProto.UINT8
        if element not in _LIMITS:
            raise self.refuse("numbers are quantised to an unknown type", onnx.TensorProto.DataType.Name(element))
        low, high = _LIMITS[element]
        data = self.value(name)
        factor, offset = (self.parameter(given, name, axis, block) for given in (scale, zero))
        assert factor is not None
        if data is not None and not isinstance(factor, str) and not isinstance(offset, str):
            floats = np.rint(data.astype(np.float32) / factor) + (0 if offset is None else offset)
            self.constant(np.clip(floats, low, high), output)
            return
        result = self.emit("Round", self.emit("Div", name, self.operand(factor)))
        if offset is not None and (isinstance(offset, str) or offset.any()):
            result = self.emit("Add", result, self.operand(offset))
        self.emit("Clip", result, self.constant(low), self.constant(high), output=output)


def _attributes(node: Any) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _inputs(node: Any, count: int) -> list[str]:
    """So many inputs; "" for those that are not given."""
    return [*node.input, *[""] * count][:count]


def _dequantize_linear(rewriter: _Rewriter, node: Any) -> None:
    data, scale, zero = _inputs(node, 3)
    attributes = _attributes(node)
    element = rewriter.element(data)
    if element is not None and element in _REFUSED:
        raise rewriter.refuse("weights in such floats are not supported", onnx.TensorProto.DataType.Name(element))
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    rewriter.dequantise(data, scale, zero, axis=axis, block=block, output=node.output[0])


def _quantize_linear(rewriter: _Rewriter, node: Any) -> None:
    data, scale, zero = _inputs(node, 3)
    attributes = _attributes(node)
    options = {"axis": attributes.get("axis", 1), "block": attributes.get("block_size", 0)}
    element = attributes.get("output_dtype", 0)
    rewriter.quantise(data, scale, zero, node.output[0], element=element, **options)


def _dynamic_quantize_linear(rewriter: _Rewriter, node: Any) -> None:
    """The range of the data, with 0 in it, becomes 0 to 255."""
    quantised, scale, zero = node.output
    emit, naught = rewriter.emit, rewriter.constant(0)
    high = emit("Max", emit("ReduceMax", node.input[0], keepdims=0), naught)
    low = emit("Min", emit("ReduceMin", node.input[0], keepdims=0), naught)
    step = emit("Div", emit("Sub", high, low), rewriter.constant(255))
    emit("Where", emit("Equal", step, naught), rewriter.constant(1), step, output=scale)
    start = emit("Round", emit("Div", emit("Neg", low), scale))
    emit("Clip", start, naught, rewriter.constant(255), output=zero)
    rewriter.quantise(node.input[0], scale, zero, quantised)


def _integers(rewriter: _Rewriter, node: Any, op: str) -> None:
    """ConvInteger and MatMulInteger: (x - zero) * (w - zero), whose sums stay floats."""
    data, weight, zero, weight_zero = _inputs(node, 4)
    product = op == "MatMul"
    data = rewriter.dequantise(data, "", zero, axis=-2 if product else 1)
    weight = rewriter.dequantise(weight, "", weight_zero, axis=-1 if product else 0, weight=True)
    rewriter.emit(op, data, weight, output=node.output[0], name=node.name, **_attributes(node))


def _bias(rewriter: _Rewriter, bias: str, factors: Sequence[str], alpha: float = 1.0) -> str:
    """A bias in int32, whose scale is the product of those of input and weight."""
    if not bias:
        return ""
    values = [rewriter.value(name) for name in (bias, *factors)]
    if any(value is None for value in values):
        raise rewriter.refuse("the bias of a quantised layer is computed", bias)
    data, left, right = (np.asarray(value, np.float32) for value in values)
    return rewriter.constant(data * (np.float32(alpha) * left.reshape(-1) * right.reshape(-1)))


def _qlinear_conv(rewriter: _Rewriter, node: Any) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, out_scale, out_zero, bias = _inputs(node, 9)
    if _attributes(node).get("channels_last"):
        raise rewriter.refuse("channels come last", node.op_type)
    operands = [
        rewriter.dequantise(data, scale, zero),
        rewriter.dequantise(weight, weight_scale, weight_zero, axis=0, weight=True),
        _bias(rewriter, bias, (scale, weight_scale)),
    ]
    attributes = {key: value for key, value in _attributes(node).items() if key != "channels_last"}
    result = rewriter.emit("Conv", *filter(None, operands), name=node.name, **attributes)
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _qlinear_matmul(rewriter: _Rewriter, node: Any) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, out_scale, out_zero = _inputs(node, 8)
    data = rewriter.dequantise(data, scale, zero, axis=-2)
    weight = rewriter.dequantise(weight, weight_scale, weight_zero, axis=-1, weight=True)
    result = rewriter.emit("MatMul", data, weight, name=node.name)
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _qgemm(rewriter: _Rewriter, node: Any) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, bias, out_scale, out_zero = _inputs(node, 9)
    attributes = _attributes(node)
    operands = [
        rewriter.dequantise(data, scale, zero),
        rewriter.dequantise(weight, weight_scale, weight_zero, axis=0 if attributes.get("transB") else -1, weight=True),
        _bias(rewriter, bias, (scale, weight_scale), attributes.get("alpha", 1.0)),
    ]
    plain = "" if out_scale else node.output[0]
    result = rewriter.emit("Gemm", *filter(None, operands), name=node.name, output=plain, **attributes)
    if out_scale:
        rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _pointwise(rewriter: _Rewriter, node: Any, op: str, count: int = 1) -> None:
    """An operator of `count` tensors, each with its scale and zero point; the result's follow."""
    inputs = _inputs(node, 3 * count + 2)
    attributes = _attributes(node)
    if attributes.pop("channels_last", 0):
        raise rewriter.refuse("channels come last", node.op_type)
    if attributes.pop("opset", 13) < 13:
        raise rewriter.refuse("a softmax of several axes is quantised", node.op_type)
    operands = [rewriter.dequantise(*inputs[3 * index : 3 * index + 3]) for index in range(count)]
    result = rewriter.emit(op, *operands, name=node.name, **attributes)
    rewriter.quantise(result, inputs[-2], inputs[-1], node.output[0])


def _qlinear_concat(rewriter: _Rewriter, node: Any) -> None:
    out_scale, out_zero, *tensors = node.input
    operands = [rewriter.dequantise(*tensors[index : index + 3]) for index in range(0, len(tensors), 3)]
    result = rewriter.emit("Concat", *operands, name=node.name, **_attributes(node))
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


RULES: dict[str, Callable[[_Rewriter, Any], None]] = {
    "ConvInteger": partial(_integers, op="Conv"),
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "MatMulInteger": partial(_integers, op="MatMul"),
    "QGemm": _qgemm,
    "QLinearAdd": partial(_pointwise, op="Add", count=2),
    "QLinearAveragePool": partial(_pointwise, op="AveragePool"),
    "QLinearConcat": _qlinear_concat,
    "QLinearConv": _qlinear_conv,
    "QLinearGlobalAveragePool": partial(_pointwise, op="GlobalAveragePool"),
    "QLinearLeakyRelu": partial(_pointwise, op="LeakyRelu"),
    "QLinearMatMul": _qlinear_matmul,
    "QLinearMul": partial(_pointwise, op="Mul", count=2),
    "QLinearSigmoid": partial(_pointwise, op="Sigmoid"),
    "QLinearSoftmax": partial(_pointwise, op="Softmax"),
    "QuantizeLinear": _quantize_linear,
}
