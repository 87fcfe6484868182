"""Quantised ONNX models as models in floats: weights are dequantised, quantised activations are floats that hold
integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from pconvgen.frontend.onnx.order import names_read
from pconvgen.frontend.onnx.rewriter import Rewriter, attributes_of

DOMAINS = ("", "ai.onnx", "com.microsoft")
_REFUSED = [number for name, number in onnx.TensorProto.DataType.items() if name.startswith(("FLOAT8", "FLOAT4"))]


def as_floats(model: onnx.ModelProto, source: str) -> set[str] | None:
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
    rewriter = Rewriter(model, source)
    for node in list(graph.node):
        rule = RULES.get(node.op_type) if node.domain in DOMAINS else None
        if rule is None:
            rewriter.nodes.append(node)
        else:
            rule(rewriter.of(node), node)
    del graph.node[:]
    graph.node.extend(rewriter.nodes)
    used = {name for node in graph.node for name in names_read(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return rewriter.weights


def with_weights(graph: onnx.GraphProto, variables: Mapping[str, str], weights: Collection[str]) -> list[str]:
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


def _inputs(node: onnx.NodeProto, count: int) -> list[str]:
    """So many inputs; "" for those that are not given."""
    return [*node.input, *[""] * count][:count]


def _dequantize_linear(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    data, scale, zero = _inputs(node, 3)
    attributes = attributes_of(node)
    element = rewriter.element(data)
    if element is not None and element in _REFUSED:
        raise rewriter.refuse("weights in such floats are not supported", onnx.TensorProto.DataType.Name(element))
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    rewriter.dequantise(data, scale, zero, axis=axis, block=block, output=node.output[0])


def _quantize_linear(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    data, scale, zero = _inputs(node, 3)
    attributes = attributes_of(node)
    options = {"axis": attributes.get("axis", 1), "block": attributes.get("block_size", 0)}
    element = attributes.get("output_dtype", 0)
    rewriter.quantise(data, scale, zero, node.output[0], element=element, **options)


def _dynamic_quantize_linear(rewriter: Rewriter, node: onnx.NodeProto) -> None:
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


def _integers(rewriter: Rewriter, node: onnx.NodeProto, op: str) -> None:
    """ConvInteger and MatMulInteger: (x - zero) * (w - zero), whose sums stay floats."""
    data, weight, zero, weight_zero = _inputs(node, 4)
    product = op == "MatMul"
    data = rewriter.dequantise(data, "", zero, axis=-2 if product else 1)
    weight = rewriter.dequantise(weight, "", weight_zero, axis=-1 if product else 0, weight=True)
    rewriter.emit(op, data, weight, output=node.output[0], name=node.name, **attributes_of(node))


def _bias(rewriter: Rewriter, bias: str, factors: Sequence[str], alpha: float = 1.0) -> str:
    """A bias in int32, whose scale is the product of those of input and weight."""
    if not bias:
        return ""
    values = [rewriter.value(name) for name in (bias, *factors)]
    if any(value is None for value in values):
        raise rewriter.refuse("the bias of a quantised layer is computed", bias)
    data, left, right = (np.asarray(value, np.float32) for value in values)
    return rewriter.constant(data * (np.float32(alpha) * left.reshape(-1) * right.reshape(-1)))


def _qlinear_conv(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, out_scale, out_zero, bias = _inputs(node, 9)
    if attributes_of(node).get("channels_last"):
        raise rewriter.refuse("channels come last", node.op_type)
    operands = [
        rewriter.dequantise(data, scale, zero),
        rewriter.dequantise(weight, weight_scale, weight_zero, axis=0, weight=True),
        _bias(rewriter, bias, (scale, weight_scale)),
    ]
    attributes = {key: value for key, value in attributes_of(node).items() if key != "channels_last"}
    result = rewriter.emit("Conv", *filter(None, operands), name=node.name, **attributes)
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _qlinear_matmul(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, out_scale, out_zero = _inputs(node, 8)
    data = rewriter.dequantise(data, scale, zero, axis=-2)
    weight = rewriter.dequantise(weight, weight_scale, weight_zero, axis=-1, weight=True)
    result = rewriter.emit("MatMul", data, weight, name=node.name)
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _qgemm(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    data, scale, zero, weight, weight_scale, weight_zero, bias, out_scale, out_zero = _inputs(node, 9)
    attributes = attributes_of(node)
    operands = [
        rewriter.dequantise(data, scale, zero),
        rewriter.dequantise(weight, weight_scale, weight_zero, axis=0 if attributes.get("transB") else -1, weight=True),
        _bias(rewriter, bias, (scale, weight_scale), attributes.get("alpha", 1.0)),
    ]
    plain = "" if out_scale else node.output[0]
    result = rewriter.emit("Gemm", *filter(None, operands), name=node.name, output=plain, **attributes)
    if out_scale:
        rewriter.quantise(result, out_scale, out_zero, node.output[0])


def _pointwise(rewriter: Rewriter, node: onnx.NodeProto, op: str, count: int = 1) -> None:
    """An operator of `count` tensors, each with its scale and zero point; the result's follow."""
    inputs = _inputs(node, 3 * count + 2)
    attributes = attributes_of(node)
    if attributes.pop("channels_last", 0):
        raise rewriter.refuse("channels come last", node.op_type)
    if attributes.pop("opset", 13) < 13:
        raise rewriter.refuse("a softmax of several axes is quantised", node.op_type)
    operands = [rewriter.dequantise(*inputs[3 * index : 3 * index + 3]) for index in range(count)]
    result = rewriter.emit(op, *operands, name=node.name, **attributes)
    rewriter.quantise(result, inputs[-2], inputs[-1], node.output[0])


def _qlinear_concat(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    out_scale, out_zero, *tensors = node.input
    operands = [rewriter.dequantise(*tensors[index : index + 3]) for index in range(0, len(tensors), 3)]
    result = rewriter.emit("Concat", *operands, name=node.name, **attributes_of(node))
    rewriter.quantise(result, out_scale, out_zero, node.output[0])


RULES: dict[str, Callable[[Rewriter, onnx.NodeProto], None]] = {
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
