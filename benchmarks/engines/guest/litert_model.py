"""ONNX networks as LiteRT models: NHWC throughout, activations fused, batch norm and padding where XNNPACK wants them.

The converters of LiteRT's makers bring TensorFlow or a second PyTorch; the networks of the benchmark need a dozen
operators. Runs in the engine's environment (numpy, onnx, ai-edge-litert), not in pconvgen's.
"""

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

OPERATORS, KINDS = schema.BuiltinOperator, schema.BuiltinOptions
FUSED = schema.ActivationFunctionType
NHWC = (0, 2, 3, 1)


def convert(source, target):
    """Writes the ONNX file `source`, whose tensors are float32 NCHW and have static shapes, to `target`."""
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    graph = _Graph(model.graph)
    for node in model.graph.node:
        if node.output[0] not in graph.done:
            if node.op_type not in RULES:
                raise ValueError(f"no LiteRT model of {node.op_type}")
            RULES[node.op_type](graph, node)
    with open(target, "wb") as file:
        file.write(graph.finish())


class _Graph:
    """What was converted so far, and what the ONNX graph says."""

    def __init__(self, graph):
        self.graph = graph
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(attributes(node)["value"])
        self.shapes = {
            item.name: tuple(size.dim_value for size in item.type.tensor_type.shape.dim)
            for item in (*graph.input, *graph.value_info, *graph.output)
        }
        self.readers = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.producers = {node.output[0]: node for node in graph.node}
        self.results = {item.name for item in graph.output}
        self.done = set()
        self.tensors, self.buffers, self.operators, self.codes = [], [schema.BufferT()], [], []
        self.indices = {}
        for item in graph.input:
            if item.name not in self.constants:
                self.value(item.name)

    def value(self, name, shape=None):
        """Index of an activation; NCHW becomes NHWC."""
        if name not in self.indices:
            shape = shape or self.shapes[name]
            self.indices[name] = self._tensor(name, [shape[i] for i in NHWC] if len(shape) == 4 else shape, 0)
        return self.indices[name]

    def constant(self, array):
        """Index of a new constant."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.buffers.append(buffer)
        kind = {"f": schema.TensorType.FLOAT32, "i": schema.TensorType.INT32}[array.dtype.kind]
        return self._tensor(f"constant{len(self.tensors)}", array.shape, len(self.buffers) - 1, kind)

    def _tensor(self, name, shape, buffer, kind=schema.TensorType.FLOAT32):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, [int(size) for size in shape], buffer, kind
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def emit(self, name, inputs, output, version=1, **options):
        """One operator, e.g. "CONV_2D"; `options` are those of its options table, whose name `kind` gives."""
        operator, code = schema.OperatorT(), getattr(OPERATORS, name)
        if (code, version) not in self.codes:
            self.codes.append((code, version))
        operator.opcodeIndex = self.codes.index((code, version))
        operator.inputs, operator.outputs = inputs, [output]
        kind = options.pop("kind", None)
        if kind:
            operator.builtinOptionsType = getattr(KINDS, kind)
            operator.builtinOptions = getattr(schema, kind + "T")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)

    def fused(self, node):
        """The activation that alone reads the node's output, and the name of the result with it."""
        name = node.output[0]
        readers = self.readers.get(name, [])
        if len(readers) == 1 and name not in self.results:
            activation = self.activation(readers[0])
            if activation is not None:
                self.done.add(readers[0].output[0])
                return activation, readers[0].output[0]
        return FUSED.NONE, name

    def activation(self, node):
        """What a Relu or a Clip is called; None for anything else."""
        if node.op_type == "Relu":
            return FUSED.RELU
        if node.op_type == "Clip" and [float(self.constants[name]) for name in node.input[1:]] == [0.0, 6.0]:
            return FUSED.RELU6
        return None

    def padded(self, name, window, strides, pads, negative=False):
        """Input index and padding of a window; zeros are put around explicitly where SAME would put them elsewhere."""
        shape, strided = self.shapes[name], list(zip(self.shapes[name][2:], window, strides, strict=True))
        total = [max((-(-size // step) - 1) * step + reach - size, 0) for size, reach, step in strided]
        same = [half // 2 for half in total] + [half - half // 2 for half in total]
        if list(pads) == same:
            return self.value(name), schema.Padding.SAME if any(pads) else schema.Padding.VALID
        top, left, bottom, right = pads
        around = self.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        padded = f"{name} padded {tuple(pads)} {negative}"
        if padded not in self.indices:
            height, width = shape[2] + top + bottom, shape[3] + left + right
            index = self.value(padded, (shape[0], shape[1], height, width))
            if negative:
                lowest = self.constant(np.array([np.finfo(np.float32).min], np.float32))
                self.emit("PADV2", [self.value(name), around, lowest], index, kind="PadV2Options")
            else:
                self.emit("PAD", [self.value(name), around], index, kind="PadOptions")
        return self.indices[padded], schema.Padding.VALID

    def finish(self):
        """The model's bytes."""
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = [self.indices[item.name] for item in self.graph.input if item.name in self.indices]
        graph.outputs = [self.indices[item.name] for item in self.graph.output]
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for number, version in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def attributes(node):
    """The node's attributes by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def conv(graph, node):
    """Convolution, depthwise convolution; a group in between is not needed."""
    given, name = attributes(node), node.input[0]
    weight = graph.constants[node.input[1]]
    bias = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    groups, strides = given.get("group", 1), given.get("strides", [1, 1])
    data, padding = graph.padded(name, weight.shape[2:], strides, given.get("pads", [0] * 4))
    activation, result = graph.fused(node)
    common = {"padding": padding, "strideH": strides[0], "strideW": strides[1], "fusedActivationFunction": activation}
    output = graph.value(result)
    if groups == 1:
        weights = graph.constant(weight.transpose(NHWC))
        graph.emit("CONV_2D", [data, weights, graph.constant(bias)], output, kind="Conv2DOptions", **common)
        return
    if weight.shape[1] != 1 or groups != graph.shapes[name][1]:
        raise ValueError(f"no LiteRT model of a convolution of {groups} groups")
    weights = graph.constant(weight.transpose(1, 2, 3, 0))
    kind, multiplier = "DepthwiseConv2DOptions", len(weight) // groups
    inputs = [data, weights, graph.constant(bias)]
    graph.emit("DEPTHWISE_CONV_2D", inputs, output, kind=kind, depthMultiplier=multiplier, **common)


def conv_transpose(graph, node):
    """Transposed convolution without padding; a batch norm that alone reads it is folded."""
    given = attributes(node)
    weight = graph.constants[node.input[1]]
    bias = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros(weight.shape[1], np.float32)
    name = node.output[0]
    (reader,) = graph.readers[name] if len(graph.readers[name]) == 1 else (None,)
    if reader is not None and reader.op_type == "BatchNormalization":
        scale, shift, mean, variance = (graph.constants[item] for item in reader.input[1:5])
        factor = scale / np.sqrt(variance + attributes(reader).get("epsilon", 1e-5))
        weight, bias = weight * factor[:, None, None], (bias - mean) * factor + shift
        name = reader.output[0]
        graph.done.add(name)
    if any(given.get("pads", [0])) or any(given.get("output_padding", [0])):
        raise ValueError("no LiteRT model of a padded transposed convolution")
    strides, shape = given.get("strides", [1, 1]), graph.shapes[node.output[0]]
    size = graph.constant(np.array([shape[i] for i in NHWC], np.int32))
    weights = graph.constant(weight.transpose(1, 2, 3, 0).astype(np.float32))
    inputs = [size, weights, graph.value(node.input[0]), graph.constant(bias.astype(np.float32))]
    options = {"padding": schema.Padding.VALID, "strideH": strides[0], "strideW": strides[1]}
    graph.emit("TRANSPOSE_CONV", inputs, graph.value(name, shape), 3, kind="TransposeConvOptions", **options)


def gemm(graph, node):
    """Linear layer; behind a Flatten its columns are sorted as NHWC lies in memory."""
    weight = graph.constants[node.input[1]]
    if not attributes(node).get("transB", 0):
        weight = weight.T
    producer = graph.producers.get(node.input[0])
    if producer is not None and producer.op_type == "Flatten":
        channels, height, width = graph.shapes[producer.input[0]][1:]
        weight = weight.reshape(-1, channels, height, width).transpose(NHWC).reshape(len(weight), -1)
    activation, result = graph.fused(node)
    inputs = [graph.value(node.input[0]), graph.constant(weight), graph.constant(graph.constants[node.input[2]])]
    options = {"kind": "FullyConnectedOptions", "fusedActivationFunction": activation}
    graph.emit("FULLY_CONNECTED", inputs, graph.value(result), **options)


def pool(name):
    """The rule of a pooling of windows."""

    def rule(graph, node):
        given = attributes(node)
        (height, width), strides = given["kernel_shape"], given.get("strides", [1, 1])
        pads = given.get("pads", [0] * 4)
        if name == "AVERAGE_POOL_2D" and any(pads):
            raise ValueError("no LiteRT model of a padded average pooling")
        producer = graph.producers.get(node.input[0])
        # Zeros are as good as nothing where nothing is negative, and XNNPACK knows only them.
        negative = producer is None or graph.activation(producer) is None
        data, padding = graph.padded(node.input[0], (height, width), strides, pads, negative)
        options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
        options |= {"filterHeight": height, "filterWidth": width}
        graph.emit(name, [data], graph.value(node.output[0]), kind="Pool2DOptions", **options)

    return rule


def whole_pool(graph, node):
    """Mean of whole planes."""
    axes = graph.constant(np.array([1, 2], np.int32))
    output = graph.value(node.output[0])
    graph.emit("MEAN", [graph.value(node.input[0]), axes], output, kind="ReducerOptions", keepDims=True)


def binary(name, kind):
    """The rule of an elementwise operator of two tensors."""

    def rule(graph, node):
        activation, result = graph.fused(node)
        inputs = [graph.value(item) for item in node.input]
        graph.emit(name, inputs, graph.value(result), kind=kind, fusedActivationFunction=activation)

    return rule


def unary(name):
    """The rule of an elementwise operator of one tensor."""
    return lambda graph, node: graph.emit(name, [graph.value(node.input[0])], graph.value(node.output[0]))


def flatten(graph, node):
    """A view of N x (H W C)."""
    shape = graph.shapes[node.output[0]]
    size = graph.constant(np.array(shape, np.int32))
    graph.emit("RESHAPE", [graph.value(node.input[0]), size], graph.value(node.output[0]))


def concat(graph, node):
    """Channels behind channels."""
    inputs = [graph.value(item) for item in node.input]
    graph.emit("CONCATENATION", inputs, graph.value(node.output[0]), kind="ConcatenationOptions", axis=3)


def resize(graph, node):
    """Nearest or bilinear with half-pixel centres."""
    mode = attributes(node)["mode"].decode()
    size = graph.constant(np.array(graph.shapes[node.output[0]][2:], np.int32))
    inputs, output = [graph.value(node.input[0]), size], graph.value(node.output[0])
    if mode == "nearest":
        graph.emit("RESIZE_NEAREST_NEIGHBOR", inputs, output, kind="ResizeNearestNeighborOptions")
        return
    graph.emit("RESIZE_BILINEAR", inputs, output, 3, kind="ResizeBilinearOptions", halfPixelCenters=True)


RULES = {
    "Constant": lambda graph, node: None,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MaxPool": pool("MAX_POOL_2D"),
    "AveragePool": pool("AVERAGE_POOL_2D"),
    "GlobalAveragePool": whole_pool,
    "Add": binary("ADD", "AddOptions"),
    "Mul": binary("MUL", "MulOptions"),
    "Relu": unary("RELU"),
    "Sigmoid": unary("LOGISTIC"),
    "Flatten": flatten,
    "Concat": concat,
    "Resize": resize,
}
