"""How each engine converts, loads and runs a network, on one thread in float32; runs in the engine's own environment.

An engine is a class: `convert(source)`, from model.onnx to whatever it reads, written beside it, and a session of what
was converted, with `infer()` for one inference and `outputs()` for what the last one computed, a list of arrays. This
file needs numpy and the engine only, nothing of pconvgen.
"""

import sys
import time
from pathlib import Path

import numpy as np


class Session:
    """A network in an engine; `inputs` and outputs are float32 NCHW arrays, by name and in the network's order."""

    @staticmethod
    def convert(source):
        """Writes what the engine reads; engines that read ONNX have nothing to do."""

    def seconds(self):
        """How long one inference takes, from here."""
        started = time.perf_counter()
        self.infer()
        return time.perf_counter() - started


class OnnxRuntime(Session):
    """ONNX Runtime's processor kernels, graph optimizations on."""

    def __init__(self, source, inputs, names):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        self.inputs = inputs

    def infer(self):
        self.results = self.session.run(None, self.inputs)

    def outputs(self):
        return self.results


class OpenVino(Session):
    """OpenVINO, tuned for latency; it would take bfloat16 where a processor has it."""

    def __init__(self, source, inputs, names):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request = openvino.Core().compile_model(str(source), "CPU", settings).create_infer_request()
        for name, array in inputs.items():
            self.request.set_tensor(name, openvino.Tensor(array))
        self.names = names

    def infer(self):
        self.request.infer()

    def outputs(self):
        return [self.request.get_tensor(name).data for name in self.names]


class Mnn(Session):
    """MNN with float32 arithmetic (precision high), from its own converter."""

    precision = "high"

    @staticmethod
    def convert(source):
        import _tools

        # MNN's own command line for this also sends statistics somewhere.
        files = ["--modelFile", str(source), "--MNNModel", str(source.with_suffix(".mnn"))]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files])

    def __init__(self, source, inputs, names):
        import MNN
        import MNN.expr

        config = {"backend": "CPU", "numThread": 1, "precision": self.precision}
        manager = MNN.nn.create_runtime_manager((config,))
        path = str(source.with_suffix(".mnn"))
        self.net = MNN.nn.load_module_from_file(path, list(inputs), names, runtime_manager=manager)
        self.data = [MNN.expr.const(array, list(array.shape), MNN.expr.NCHW) for array in inputs.values()]

    def infer(self):
        # forward alone computes nothing.
        self.results = [output.read() for output in self.net.forward(self.data)]

    def outputs(self):
        return [np.asarray(array) for array in self.results]


class MnnHalf(Mnn):
    """The same in float16, on processors that compute in it."""

    precision = "low"


class Ncnn(Session):
    """ncnn with float32 storage and arithmetic, from pnnx, its own converter."""

    half = False

    @staticmethod
    def convert(source):
        import subprocess
        from importlib.util import find_spec

        # Its Python package wants torch; the program in it does not.
        program = Path(find_spec("pnnx").submodule_search_locations[0]) / "pnnx"
        command = [str(program), source.name, "fp16=0"]
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
        if not source.with_suffix(".ncnn.bin").is_file():
            raise RuntimeError(f"pnnx: {(done.stdout + done.stderr)[-500:]}")

    def __init__(self, source, inputs, names):
        import ncnn

        self.net = ncnn.Net()
        self.net.opt.num_threads = 1
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self.net.opt, option, self.half)
        self.net.opt.use_bf16_storage = False
        for load, suffix in ((self.net.load_param, ".ncnn.param"), (self.net.load_model, ".ncnn.bin")):
            if load(str(source.with_suffix(suffix))):
                raise RuntimeError(f"ncnn does not load {source.with_suffix(suffix).name}")
        self.data = [(f"in{index}", ncnn.Mat(array[0])) for index, array in enumerate(inputs.values())]
        self.names = [f"out{index}" for index, _ in enumerate(names)]

    def infer(self):
        extractor = self.net.create_extractor()
        for name, data in self.data:
            extractor.input(name, data)
        self.results = [extractor.extract(name) for name in self.names]
        for code, _ in self.results:
            if code:
                raise RuntimeError(f"ncnn failed with {code}")

    def outputs(self):
        return [np.array(result)[None] for _, result in self.results]


class NcnnHalf(Ncnn):
    """The same in float16, on processors that compute in it."""

    half = True


class LiteRt(Session):
    """LiteRT with XNNPACK, its default; NHWC, as it wants it."""

    @staticmethod
    def convert(source):
        from litert_model import convert

        convert(str(source), str(source.with_suffix(".tflite")))

    def __init__(self, source, inputs, names):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(source.with_suffix(".tflite")), num_threads=1)
        self.interpreter.allocate_tensors()
        for detail, array in zip(self.interpreter.get_input_details(), inputs.values(), strict=True):
            self.interpreter.set_tensor(detail["index"], np.ascontiguousarray(array.transpose(0, 2, 3, 1)))

    def infer(self):
        self.interpreter.invoke()

    def outputs(self):
        arrays = [self.interpreter.get_tensor(detail["index"]) for detail in self.interpreter.get_output_details()]
        return [array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for array in arrays]


class DeepSparse(Session):
    """DeepSparse on one core; its times are those that its engine reports."""

    def __init__(self, source, inputs, names):
        from deepsparse import compile_model

        self.engine = compile_model(str(source), batch_size=1, num_cores=1)
        self.inputs = list(inputs.values())

    def infer(self):
        self.results = self.engine.run(self.inputs, val_inp=False)

    def outputs(self):
        return self.results

    def seconds(self):
        return self.engine.timed_run(self.inputs, val_inp=False)[1]


class Tvm(Session):
    """A library that TVM's plain runtime runs; pconvgen's are such."""

    def __init__(self, source, inputs, names):
        # Without torch, which TVM imports if it is there.
        sys.modules.setdefault("torch", None)
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self.machine = VirtualMachine(tvm.runtime.load_module(str(source)), tvm.cpu())
        self.function = self.machine["main"]
        self.inputs = [tvm.runtime.tensor(array) for array in inputs.values()]

    def infer(self):
        self.results = self.function(*self.inputs)

    def outputs(self):
        results = [self.results] if hasattr(self.results, "numpy") else self.results
        return [result.numpy() for result in results]

    def profile(self, repeats):
        """What one inference calls, in order.

        Returns a list of {"name": the function, "nbytes": of every tensor that it is given, the output last,
        "ms": the quickest of `repeats` inferences}.
        """
        calls, inference, started = [], [], 0.0

        def instrument(function, name, before, result, *args):
            nonlocal started
            if not before:
                inference.append((name, 1e3 * (time.perf_counter() - started), args))
            started = time.perf_counter()
            return 0

        self.machine.set_instrument(instrument)
        for _ in range(repeats):
            inference.clear()
            self.infer()
            calls.append([ms for _, ms, _ in inference])
        quickest = np.min(calls, axis=0)
        return [
            {"name": name, "nbytes": [_nbytes(arg) for arg in args if hasattr(arg, "dtype")], "ms": float(ms)}
            for (name, _, args), ms in zip(inference, quickest, strict=True)
        ]


class Untuned(Tvm):
    """TVM's own importer and pipeline; nothing is tuned."""

    library = "untuned.so"

    @staticmethod
    def convert(source):
        import tvm_dense

        tvm_dense.convert(source, tuned=False)

    def __init__(self, source, inputs, names):
        super().__init__(source.parent / self.library, inputs, names)


class Tuned(Untuned):
    """The same with MetaSchedule's best of some trials."""

    library = "tuned.so"

    @staticmethod
    def convert(source):
        import tvm_dense

        tvm_dense.convert(source, tuned=True)


def _nbytes(tensor):
    return int(np.prod(tensor.shape)) * np.dtype(str(tensor.dtype)).itemsize


SESSIONS = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "mnn": Mnn,
    "ncnn": Ncnn,
    "mnn half": MnnHalf,
    "ncnn half": NcnnHalf,
    "litert": LiteRt,
    "deepsparse": DeepSparse,
    "tvm": Tvm,
    "tvm untuned": Untuned,
    "tvm tuned": Tuned,
}


def load(engine, source, arrays, names):
    """A session of the network; `arrays` are its inputs by name, `names` those of its outputs."""
    inputs = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return SESSIONS[engine](Path(source), inputs, names)
