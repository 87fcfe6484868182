"""What a user gets for a model that cannot be imported: one line that names the file, the place and the remedy."""

from __future__ import annotations

import gc
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_frontend import export_onnx, export_pt2
from torch import nn

from pconvgen.errors import PconvgenError, UsageError
from pconvgen.frontend import load_model

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
EXAMPLE = (torch.zeros(1, 3, 8, 8),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good files: m.pt2, m.onnx, big.onnx + big.onnx.data, dynamic.pt2, dynamic.onnx."""
    folder = tmp_path_factory.mktemp("models")
    export_pt2(network(), EXAMPLE, folder / "m.pt2")
    export_onnx(network(), EXAMPLE, folder / "m.onnx", input_names=["image"])
    model = onnx.load(folder / "m.onnx")
    onnx.save(model, folder / "big.onnx", save_as_external_data=True, location="big.onnx.data", size_threshold=0)
    two = (torch.zeros(2, 3, 8, 8),)
    export_pt2(network(), two, folder / "dynamic.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},))
    export_onnx(network(), two, folder / "dynamic.onnx", input_names=["image"], dynamic_axes={"image": {0: "batch"}})
    return folder


def message(source: Any, inputs: Any = None, kind: type[PconvgenError] = PconvgenError) -> str:
    with pytest.raises(PconvgenError) as caught:
        load_model(source, inputs)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert caught.value.remedy
    if isinstance(source, Path):
        assert text.startswith(str(source))
    return text


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "gone.pt2", kind=UsageError)
    (tmp_path / "folder.onnx").mkdir()
    assert "not a file" in message(tmp_path / "folder.onnx", kind=UsageError)


@pytest.mark.parametrize("name", ["model.tflite", "model"])
def test_unknown_extension(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert "expected .pt2 or .onnx" in message(tmp_path / name, kind=UsageError)


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.safetensors"])
def test_weights_instead_of_a_network(name: str, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / name)
    assert "torch.export.save" in message(tmp_path / name, kind=UsageError)


def test_state_dict_with_the_wrong_extension(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "m.pt2")
    text = message(tmp_path / "m.pt2")
    assert "pickled weights" in text
    assert "torch.export.save" in text


def test_torchscript(tmp_path: Path) -> None:
    torch.jit.trace(network(), EXAMPLE).save(str(tmp_path / "m.pt2"))
    assert "TorchScript" in message(tmp_path / "m.pt2")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(PNG),
        lambda path: path.write_text("hello, I am no model\n" * 9),
        lambda path: path.write_bytes(b""),
        _zip,
    ],
    ids=["png", "text", "empty", "zip"],
)
def test_foreign_file(suffix: str, write: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    write(path)
    assert ("not a valid ONNX" if suffix == ".onnx" else "not a torch.export file") in message(path)


@pytest.mark.parametrize("name", ["m.pt2", "m.onnx"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file(name: str, share: float, files: Path, tmp_path: Path) -> None:
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert "again" in message(tmp_path / name)


def test_damaged_archive_member(files: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(files / "m.pt2") as good, zipfile.ZipFile(tmp_path / "m.pt2", "w") as bad:
        for item in good.infolist():
            content = good.read(item)
            bad.writestr(item.filename, content[:100] if item.filename.endswith("model.json") else content)
    assert "torch cannot read this export" in message(tmp_path / "m.pt2")


def test_external_data(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "big.onnx", tmp_path / "big.onnx")
    text = message(tmp_path / "big.onnx")
    assert str(tmp_path / "big.onnx.data") in text
    content = (files / "big.onnx.data").read_bytes()
    (tmp_path / "big.onnx.data").write_bytes(content[: len(content) // 2])
    assert "not a valid ONNX" in message(tmp_path / "big.onnx")
    shutil.copy(files / "big.onnx.data", tmp_path / "big.onnx.data")
    assert load_model(tmp_path / "big.onnx").inputs[0].name == "image"


@pytest.mark.parametrize(("name", "tensor"), [("dynamic.pt2", "input"), ("dynamic.onnx", "image")])
def test_dynamic_shape(name: str, tensor: str, files: Path) -> None:
    text = message(files / name, kind=UsageError)
    assert f"--input {tensor}=N,3,8,8" in text
    assert load_model(files / name, {tensor: (1, 3, 8, 8)}).inputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"other": (1, 3, 8, 8)}, "no such input (found other, expected image)"),
        ({"image": (1, 3, 8)}, "wrong rank (found 3 dimensions (1x3x8), expected 4 (?x3x8x8))"),
        ({"image": (1, 3, 9, 9)}, "fixed shape (found 1x3x9x9, expected ?x3x8x8)"),
        ({"image": (0, 3, 8, 8)}, "no elements (found 0x3x8x8"),
        ({"image": (-1, 3, 8, 8)}, "no elements (found -1x3x8x8"),
    ],
)
def test_wrong_input_shape(inputs: Any, expected: str, files: Path) -> None:
    assert expected in message(files / "dynamic.onnx", inputs, UsageError)
    renamed = {"input" if name == "image" else name: shape for name, shape in inputs.items()}
    assert expected.replace("image", "input") in message(files / "dynamic.pt2", renamed, UsageError)


def test_module_without_shapes() -> None:
    assert "inputs={'input': (1, 3, 224, 224)}" in message(network(), kind=UsageError)
    assert "no such input" in message(network(), {"x": (1, 3, 8, 8)}, UsageError)
    assert "torch.export cannot export" in message(network(), {"input": (1, 5, 8, 8)})


def test_not_a_model() -> None:
    assert "found int" in message(3, kind=UsageError)


def test_weights_that_are_not_finite(files: Path, tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
        model[3].weight[0, 1] = float("inf")
    text = message(export_pt2(model, EXAMPLE, tmp_path / "m.pt2"))
    assert "layer 3: weight is not finite (found 2 NaN or infinite of 288 elements" in text
    graph = onnx.load(files / "m.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name == "3.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.full((2, 144), np.nan, np.float32), tensor.name))
    onnx.save(graph, tmp_path / "m.onnx")
    assert "layer 3: weight is not finite" in message(tmp_path / "m.onnx")


def test_input_of_complex_numbers(tmp_path: Path) -> None:
    class Absolute(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.abs()

    text = message(export_pt2(Absolute(), (torch.zeros(1, 3, dtype=torch.complex64),), tmp_path / "m.pt2"))
    assert "input x has an unsupported dtype (found complex64, expected float32, float64" in text


def test_unsupported_operator(tmp_path: Path) -> None:
    class Fft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), Transform())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    class Transform(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i0(x)

    text = message(export_pt2(Fft().eval(), EXAMPLE, tmp_path / "m.pt2"))
    assert "layer inner.1: operator aten.special_i0.default is not supported (found node special_i0)" in text
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"], "block/det")], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    assert "layer block/det: operator Det is not supported" in message(tmp_path / "m.onnx")


def _maxima(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.max_pool2d(x, 2, return_indices=True)[1].float()


def _smooth(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=(3, 3), mode="bilinear", antialias=True, align_corners=True)


def _branches(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


def _average(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.avg_pool2d(x, 2, divisor_override=3)


def _uneven(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.adaptive_max_pool2d(x, 3)


def _chosen(x: torch.Tensor) -> torch.Tensor:
    return x[:, torch.tensor([True, False, True])]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (torch.randn_like, "operator aten.randn_like.default is not supported"),
        (_maxima, "the indices of a max pooling are not supported"),
        (_smooth, "antialias with align_corners"),
        (_branches, "the model has control flow"),
        (_average, "average pooling with divisor_override"),
        (_uneven, "adaptive max pooling whose windows differ in size"),
        (_chosen, "selecting elements by a mask"),
    ],
)
def test_what_would_be_computed_wrongly(
    function: Callable[[torch.Tensor], torch.Tensor], text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    assert text in message(export_pt2(Model(), EXAMPLE, tmp_path / "m.pt2"))
    gc.collect()
    assert "Warning" not in capfd.readouterr().err


def test_weights_without_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(PconvgenError, match=r"weight 0\.weight has no values"):
        load_model(model, example=EXAMPLE)


@pytest.mark.filterwarnings("ignore::pconvgen.errors.PconvgenWarning")
def test_outputs_of_which_none_is_a_tensor() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[None, int]:
            return None, 3

    with pytest.raises(PconvgenError, match=r"the model returns no tensor .found None, 3"):
        load_model(Model(), example=EXAMPLE)


def test_resizing_by_factors_that_depend_on_data(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 9])
    scales = helper.make_tensor_value_info("scales", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, None, None])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], "up")
    graph = helper.make_graph([node], "g", [x, scales], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), tmp_path / "m.onnx")
    text = message(tmp_path / "m.onnx")
    assert "layer up: TVM cannot import this Resize (found scales that depend on data)" in text


def test_node_that_the_importer_refuses(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", output_shape=[9, 9])
    graph = helper.make_graph([node], "g", value[:1], value[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    assert "layer up: TVM cannot import this ConvTranspose" in message(tmp_path / "m.onnx")


def test_old_opset(files: Path, tmp_path: Path) -> None:
    model = onnx.load(files / "m.onnx")
    model.opset_import[0].version = 6
    onnx.save(model, tmp_path / "m.onnx")
    assert "found opset 6, expected opset 11 or newer" in message(tmp_path / "m.onnx")


def test_training_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    text = message(export_pt2(model, EXAMPLE, tmp_path / "m.pt2"))
    assert "layer 1: this layer was exported in training mode" in text
    assert "model.eval()" in text


def test_input_and_output_that_are_no_tensors(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, factor: float) -> tuple[torch.Tensor, float]:
            return x * 2, factor

    path = export_pt2(Scaled(), (torch.zeros(1, 3), 2.0), tmp_path / "m.pt2")
    assert "input factor is not a tensor" in message(path)


def test_what_is_asked_of_a_module_is_checked() -> None:
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    requests: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"inputs": {"a": (1, 3)}},
            "Sum: a module needs the shapes of its inputs (found a, expected a shape for a and b)",
        ),
        ({"inputs": [(1, 3)]}, "inputs are no shapes by name (found [(1, 3)], expected a dict"),
        ({"inputs": {"a": (1, 3), "b": 3}}, "inputs are no shapes by name"),
        ({"inputs": {"a": (1, 3), "b": "1,3"}}, "inputs are no shapes by name"),
        ({"example": torch.zeros(1, 3)}, "the example is no tuple of inputs (found Tensor"),
    )
    for options, text in requests:
        with pytest.raises(UsageError) as raised:
            load_model(Sum(), **options)
        assert text in str(raised.value)
    assert load_model(Sum(), {"a": torch.Size((1, 3)), "b": [1, 3]}).outputs[0].shape == (1, 3)


class Counting(nn.Module):
    """Multiplies by the number of calls, or only counts them."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.reads = reads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls if self.reads else x * 2


def test_outputs_that_depend_on_former_calls() -> None:
    with pytest.raises(PconvgenError, match=r"changes its buffer calls, and what it returns depends on that"):
        load_model(Counting(True), example=EXAMPLE)
    assert load_model(Counting(False), example=EXAMPLE).outputs[0].name == "output"


class Condition(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return x * 2


class Boxes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[0, 0][batched_nms(x)]


def batched_nms(x: torch.Tensor) -> torch.Tensor:
    """Stands for torchvision's."""
    kept = x[0, 0, 0].nonzero()[:, 0]
    return kept[:2] if len(kept) > 2 else kept


class Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(5, 7)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Condition, r"data-dependent.*test_frontend_errors.py:\d+ in forward: if x.sum.. > 0.*without what depends on"),
        (Boxes, r"data-dependent.*in batched_nms: .*export the network without its non-maximum suppression"),
        (Sizes, r"shape '\[5, 7\]' is invalid.*in forward: return x.view.5, 7"),
    ],
)
def test_exports_that_fail_name_the_cause_and_its_line(model: type[nn.Module], message: str) -> None:
    with pytest.raises(PconvgenError, match=message) as raised:
        load_model(model(), example=EXAMPLE)
    assert "TORCH" not in str(raised.value)
