"""Runs on ARM, under emulation: one layer in one engine, between the marks of the counting plugin.

python arm_guest.py ENGINE: the folder it runs in has layer.npz (data, weight, bias) and the same layer as layer.onnx;
output.npy, NCHW, goes there. Two spans are counted, of one inference and of two: their difference is one inference
without what surrounds it. This file needs numpy and the engine only, nothing of pconvgen.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

MARKER = 0x70637667  # as in count_instructions.c
WARM_UPS = 2

Layer = dict[str, np.ndarray]
Inference = Callable[[], Any]
"""Computes the layer once. What it returns, its engine's `output` turns into an array."""


def onnxruntime(layer: Layer) -> tuple[Inference, Callable[[Any], np.ndarray]]:
    """ONNX Runtime's processor kernels, graph optimizations on."""
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = engine.InferenceSession("layer.onnx", options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"data": layer["data"]}), lambda outputs: outputs[0]


def ncnn(layer: Layer) -> tuple[Inference, Callable[[Any], np.ndarray]]:
    """ncnn in float32: no half precision for storage or arithmetic."""
    import ncnn as engine

    weight = layer["weight"]
    # Convolution: 0 filters, 1 kernel, 4 padding, 5 has bias, 6 weights, 9 activation (1: ReLU).
    with open("layer.param", "w") as file:
        file.write("7767517\n2 2\nInput data 0 1 data\n")
        file.write(f"Convolution conv 1 1 data output 0={len(weight)} 1=3 4=1 5=1 6={weight.size} 9=1\n")
    with open("layer.bin", "wb") as file:
        file.write(b"\0\0\0\0" + weight.tobytes() + layer["bias"].tobytes())  # the zeros: stored as float32
    net = engine.Net()
    net.opt.num_threads = 1
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.load_param("layer.param")
    net.load_model("layer.bin")
    data = engine.Mat(layer["data"][0])

    def infer() -> Any:
        extractor = net.create_extractor()
        extractor.input("data", data)
        return extractor.extract("output")[1]

    return infer, lambda output: np.array(output)[None]


def mnn(layer: Layer) -> tuple[Inference, Callable[[Any], np.ndarray]]:
    """MNN in float32 (precision high), from its own converter."""
    import _tools
    import MNN
    import MNN.expr

    # MNN's own command line for this also sends statistics somewhere.
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "layer.onnx", "--MNNModel", "layer.mnn"])
    config = {"backend": "CPU", "numThread": 1, "precision": "high"}
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file("layer.mnn", ["data"], ["output"], runtime_manager=manager)
    data = MNN.expr.const(layer["data"], list(layer["data"].shape), MNN.expr.NCHW)

    def infer() -> Any:
        output = net.forward([data])[0]
        return output.read()  # forward alone computes nothing

    return infer, np.asarray


def litert(layer: Layer) -> tuple[Inference, Callable[[Any], np.ndarray]]:
    """LiteRT with XNNPACK, its default; NHWC, as it wants it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    def tensor(name: str, shape: tuple[int, ...], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, list(shape), buffer, schema.TensorType.FLOAT32
        return made

    def buffer(array: np.ndarray | None) -> Any:
        made = schema.BufferT()
        made.data = None if array is None else np.frombuffer(array.tobytes(), np.uint8)
        return made

    data = np.ascontiguousarray(layer["data"].transpose(0, 2, 3, 1))
    weight = layer["weight"].transpose(0, 2, 3, 1)
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("data", data.shape, 0),
        tensor("weight", weight.shape, 1),
        tensor("bias", layer["bias"].shape, 2),
        tensor("output", (*data.shape[:3], len(weight)), 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(None), buffer(weight), buffer(layer["bias"])]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data)
    index = interpreter.get_output_details()[0]["index"]
    return interpreter.invoke, lambda _: interpreter.get_tensor(index).transpose(0, 3, 1, 2)


ENGINES = {"onnxruntime": onnxruntime, "ncnn": ncnn, "mnn": mnn, "ai-edge-litert": litert}


def main() -> None:
    """Warms up, counts, writes the output."""
    with np.load("layer.npz") as file:
        layer = {name: file[name] for name in file.files}
    infer, output = ENGINES[sys.argv[1]](layer)
    result = None
    for _ in range(WARM_UPS):
        result = infer()
    mark = ctypes.CDLL(None).prctl
    for times in (1, 2):
        mark(MARKER, 1, 0, 0, 0)
        for _ in range(times):
            infer()
        mark(MARKER, 0, 0, 0, 0)
    np.save("output.npy", np.ascontiguousarray(output(result)))


if __name__ == "__main__":
    main()
