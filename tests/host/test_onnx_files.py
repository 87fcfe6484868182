"""ONNX files of older operator sets and with sparse tensors, against onnxruntime on the file as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import pconvgen
from pconvgen.errors import PconvgenError, PconvgenWarning
from pconvgen.verify import verify

pytestmark = pytest.mark.host

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f")
IMAGE = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype("f")


def save(nodes: Sequence[Any], opset: int, path: Path, sparse: Sequence[Any] = (), **constants: np.ndarray) -> None:
    """A model from the image x to y; before IR 4 initializers are inputs, too."""
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)]
    inputs += [helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in weights]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], weights, sparse_initializer=sparse)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))


def assert_as_onnxruntime(path: Path) -> None:
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": IMAGE})
    np.testing.assert_allclose(pconvgen.compile(path).run(IMAGE)["y"], expected, rtol=1e-4, atol=1e-5)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], operator, **attributes)


BODY = [
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
    node("BatchNormalization", "a scale shift mean variance", "b"),
    node("Clip", "b", "c", min=0.0, max=6.0),
    node("Dropout", "c", "d", ratio=0.3),
    node("Pad", "d", "e", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5),
    node("AveragePool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
]
STATISTICS = {
    "scale": np.array([1, 2, 0.5, -1], "f"),
    "shift": np.array([0, 0.1, 1, 2], "f"),
    "mean": np.array([0.3, -1, 0, 1], "f"),
    "variance": np.array([1, 0.5, 2, 4], "f"),
}


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_older_operator_sets_are_converted_with_a_word(opset: int, tmp_path: Path) -> None:
    scales = {} if opset < 9 else {"scales": np.array([1, 1, 2, 3], "f")}
    if opset < 9:
        larger = [node("Upsample", "f", "y", scales=[1.0, 1.0, 2.0, 3.0])]
    else:
        larger = [node("Upsample" if opset == 9 else "Resize", "f scales", "y")]
    save([*BODY, *larger], opset, tmp_path / "m.onnx", w=WEIGHT, **STATISTICS, **scales)
    with pytest.warns(PconvgenWarning, match=f"opset {opset} was converted"):
        assert_as_onnxruntime(tmp_path / "m.onnx")


def sparse_tensor(value: np.ndarray, name: str, flat: bool) -> Any:
    places = np.flatnonzero(value) if flat else np.argwhere(value)
    values = numpy_helper.from_array(value[value != 0], name)
    return helper.make_sparse_tensor(
        values, numpy_helper.from_array(places.astype(np.int64), f"{name} places"), value.shape
    )


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_tensors_are_written_out(flat: bool, tmp_path: Path) -> None:
    shift = np.zeros((1, 4, 1, 1), "f")
    shift[0, 2] = 3
    nodes = [
        node("Conv", "x w", "a"),
        helper.make_node("Constant", [], ["shift"], "c", sparse_value=sparse_tensor(shift, "s", flat)),
        node("Add", "a shift", "y"),
    ]
    pruned = WEIGHT * (np.abs(WEIGHT) > 1)
    save(nodes, 17, tmp_path / "m.onnx", [sparse_tensor(pruned, "w", flat)])
    assert_as_onnxruntime(tmp_path / "m.onnx")


def test_constants_of_every_kind(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["half"], "a", value_float=0.5),
        helper.make_node("Constant", [], ["columns"], "b", value_floats=[1.0, 2, 3, 4, 5, 6, 7, 8]),
        helper.make_node("Constant", [], ["shape"], "c", value_ints=[1, 192]),
        helper.make_node("Constant", [], ["axis"], "d", value_int=1),
        node("Mul", "x half", "p"),
        node("Add", "p columns", "q"),
        node("Reshape", "q shape", "r"),
        node("CumSum", "r axis", "y"),
    ]
    save(nodes, 17, tmp_path / "m.onnx")
    assert_as_onnxruntime(tmp_path / "m.onnx")


@pytest.mark.parametrize("typed", [True, False])
def test_outputs_may_lack_their_shape_and_type(typed: bool, tmp_path: Path) -> None:
    save([node("Conv", "x w", "y")], 17, tmp_path / "m.onnx", w=WEIGHT)
    if not typed:
        model = onnx.load(tmp_path / "m.onnx")
        model.graph.output[0].ClearField("type")
        onnx.save(model, tmp_path / "m.onnx")
    assert_as_onnxruntime(tmp_path / "m.onnx")


def test_weights_may_be_no_inputs_and_lie_beside_the_file(tmp_path: Path) -> None:
    save([node("Conv", "x w", "y")], 17, tmp_path / "m.onnx", w=WEIGHT)
    model = onnx.load(tmp_path / "m.onnx")
    del model.graph.input[1]
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").stat().st_size >= WEIGHT.nbytes
    assert_as_onnxruntime(tmp_path / "m.onnx")


def test_the_oldest_operator_sets_are_refused(tmp_path: Path) -> None:
    save([node("Upsample", "x", "y", height_scale=2.0, width_scale=2.0)], 6, tmp_path / "m.onnx")
    with pytest.raises(PconvgenError, match="operator set of this model is too old"):
        pconvgen.compile(tmp_path / "m.onnx")


@pytest.mark.long
def test_a_model_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """protobuf's limit, which a file without its weights does not reach. Takes 2.2 GB of disk and 12 GB of memory."""
    size, count = 16_500, 2
    names = [f"w{index}" for index in range(count)]
    rng = np.random.default_rng(0)
    tensors = []
    with (tmp_path / "weights.bin").open("wb") as file:
        for name in names:
            tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[size, size])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", file.tell()), ("length", 4 * size * size)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            file.write((rng.standard_normal((size, size), dtype=np.float32) / 128).tobytes())
    assert (tmp_path / "weights.bin").stat().st_size > 1 << 31
    values = ["x", "between", "y"]
    nodes = [helper.make_node("MatMul", [values[i], names[i]], [values[i + 1]]) for i in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], tensors)
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    assert verify(pconvgen.compile(path), seeds=(0,)).passed
