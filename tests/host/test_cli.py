"""The commands, from a model file to numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commands import Invoke, listen_to_interrupts
from onnx import TensorProto, helper, numpy_helper
from small import SHAPE, Small, small
from torch import nn
from torch.nn.utils import parametrize, prune

import pconvgen
from pconvgen.affinity import core_numbers
from pconvgen.devices import get_device
from pconvgen.errors import PconvgenError
from pconvgen.frontend import load_model
from pconvgen.frontend.onnx import weights as onnx_weights
from pconvgen.frontend.torch import weights as torch_weights
from pconvgen.manifest import read_manifest
from pconvgen.sparsify import Recipe, sparsify, sparsify_file
from pconvgen.sparsity import density, project
from pconvgen.verify import Verification, relative_errors, verify

pytestmark = pytest.mark.host

KEYS = {"name", "op", "shape", "macs", "structure", "density", "choice", "reason", "schedule", "predicted_ms"}
LAYERS = ["stem", "wide", "depthwise", "point", "hidden", "classes"]

without_emulator = pytest.mark.skipif(
    bool(get_device("emulated").available()), reason="no emulator, cross compiler or ARM runtime"
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_float16_weights(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "half.so"
    code, out, err = invoke("compile", models / "small.pt2", "--weights", "float16", "-o", path, "--verify")
    assert (code, err) == (0, "")
    formats = "float32, weights float16: the largest channel is .* 100.0%"
    assert re.search(rf"verified against PyTorch .*: relative error [1-9].*; {formats}", out)
    assert str(read_manifest(path).precision) == "float32, weights float16"


def test_formats_that_cannot_be(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    for options, said in (
        (("--dtype", "float16", "--target", "cortex-a53"), "does not compute in float16"),
        (("--dtype", "float16", "--target", "cortex-a7"), "--weights float16"),
        (("--accumulate", "float16"), "not summed in float16"),
        (("--weights", "int8"), "float32 or float16"),
    ):
        code, _, err = invoke("compile", models / "small.pt2", "-o", tmp_path / "m.so", *options)
        assert code == 2, options
        assert said in err
        assert not names(tmp_path)


def test_compile_and_explain(models: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke("compile", models / "small.pt2", "--explain", "e.json", "--verify", "--timings")
    assert (code, err) == (0, "")
    for phase in ("read", "kernels", "build", "link", "verify", "total"):
        assert re.search(rf"^{phase} +\d+\.\d\d$", out, re.MULTILINE), phase
    assert names(tmp_path) == ["e.json", "small.so"]
    assert (tmp_path / "small.so").read_bytes() == (models / "small.so").read_bytes()
    assert "total: 6 layers" in out
    assert "library " in out
    assert f"verified against PyTorch {torch.__version__}: relative error" in out
    assert out.splitlines()[-1] == "wrote small.so"

    explained = json.loads((tmp_path / "e.json").read_text())
    assert [layer["name"] for layer in explained["layers"]] == LAYERS
    assert all(layer.keys() >= KEYS for layer in explained["layers"])

    assert invoke("explain", "small.so", "--json", "library.json")[0] == 0
    monkeypatch.setattr("pconvgen.tvm_compat.building._object", None)  # nothing is built to explain a model
    assert invoke("explain", models / "small.pt2", "--json", "model.json")[0] == 0
    assert json.loads((tmp_path / "library.json").read_text()) == explained
    assert json.loads((tmp_path / "model.json").read_text()) == explained


def test_explain_for_arm_has_no_milliseconds(models: Path, invoke: Invoke) -> None:
    code, out, err = invoke("explain", models / "small.onnx", "--target", "cortex-a76")
    assert (code, err) == (0, "")
    assert "cycles (estimate)" in out
    assert " ms" not in out
    assert "target cortex-a76; total: 6 layers" in out


def test_dense_ignores_zeros(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "pruned.pt2"
    recipe = Recipe("simd_block", 0.1)
    sparsify_file(models / "small.pt2", path, recipe)
    structures = {}
    for flag in ((), ("--dense",)):
        assert invoke("compile", path, "-o", tmp_path / "m.so", "--explain", tmp_path / "e.json", *flag)[0] == 0
        layers = json.loads((tmp_path / "e.json").read_text())["layers"]
        structures[flag] = {layer["structure"] for layer in layers}
    assert structures[("--dense",)] == {"dense"}
    assert structures[()] - {"dense"}


def test_input_sizes_dynamic_dimensions(tmp_path: Path, invoke: Invoke) -> None:
    path, output = tmp_path / "dynamic.pt2", tmp_path / "m.so"
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(small(), (torch.zeros(2, *SHAPE[1:]),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)
    code, _, err = invoke("compile", path, "-o", output)
    assert code == 2
    assert "--input image=N,3,8,8" in err
    assert invoke("compile", path, "-o", output, "--input", "image=2,3,8,8")[0] == 0
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), "float32"))
    assert "float32 2x10" in invoke("run", output, "--input", tmp_path / "x.npy")[1]


def test_run_gives_what_the_model_gives(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.save(tmp_path / "x.npy", image)
    code, out, err = invoke("run", models / "small.so", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    assert (code, err) == (0, "")
    with torch.no_grad():
        expected = small()(torch.from_numpy(image)).numpy()
    with np.load(tmp_path / "y.npz") as stored:
        assert stored.files == ["output"]
        np.testing.assert_allclose(stored["output"], expected, rtol=1e-4, atol=1e-5)
    np.save(tmp_path / "x.npy", np.asfortranarray(image))
    cores = ("--cores", core_numbers()[-1], "--threads", 1)
    code, out, _ = invoke("run", models / "small.so", "--input", tmp_path / "x.npy", *cores)
    assert code == 0
    assert out.startswith("output: float32 1x10, min ")
    assert f"top 5: [{expected.argmax()}] " in out


def test_run_with_several_inputs(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    left, right = np.eye(4, dtype="float32")[:1], np.full((1, 4), 2, "float32")
    np.savez(tmp_path / "x.npz", right=right, left=left)
    assert invoke("run", models / "two.so", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")[0] == 0
    with np.load(tmp_path / "y.npz") as stored:
        assert stored.files == ["scores", "difference"]
        assert (stored["difference"] == left - right).all()


def test_bench(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, out, err = invoke("bench", models / "small.so", "--json", tmp_path / "b.json")
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "b.json").read_text())
    times = {"median_ms", "min_ms", "times_ms", "spread", "throttled", "conditions"}
    assert result.keys() == {"threads", "device", "target", *times}
    assert 0 < result["min_ms"] == min(result["times_ms"]) <= result["median_ms"]
    assert (result["threads"], result["device"], result["target"]) == (1, "local", "host")
    assert re.match(r"median [\d.]+ ms, min [\d.]+ ms, spread [\d.]+ %, \d+ repeats; ", out)
    assert len(result["times_ms"]) >= 10

    core = core_numbers()[-1]
    code, out, _ = invoke("bench", models / "small.so", "--cores", core, "--json", tmp_path / "b.json")
    assert code == 0
    assert json.loads((tmp_path / "b.json").read_text())["cores"] == [core]
    assert f"1 thread on core {core}, device local" in out


@without_emulator
def test_arm_under_emulation(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, out, err = invoke(
        "compile", models / "small.onnx", "--target", "cortex-a53", "-o", tmp_path / "m.so", "--verify"
    )
    assert (code, err) == (0, "")
    assert re.search(r"verified against onnxruntime \d.*: relative error", out)
    np.save(tmp_path / "x.npy", np.ones(SHAPE, "float32"))
    code, out, _ = invoke("run", tmp_path / "m.so", "--input", tmp_path / "x.npy")
    assert code == 0
    assert out.startswith("logits: float32 1x10")
    code, out, _ = invoke("bench", tmp_path / "m.so", "--json", tmp_path / "b.json")
    assert code == 0
    assert " ms" not in out
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["instructions"] == sum(result["classes"].values()) > 0
    assert not any("ms" in key for key in result)
    assert (result["device"], result["target"]) == ("emulated", "cortex-a53")


@pytest.mark.parametrize("error", [0.01, np.nan])
def test_failing_verification_writes_nothing(
    error: float, models: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pconvgen.CompiledModel.run
    monkeypatch.setattr(
        pconvgen.CompiledModel, "run", lambda self, inputs: {n: a + error for n, a in run(self, inputs).items()}
    )
    path = tmp_path / "m.so"
    path.write_text("old")
    code, out, err = invoke("compile", models / "small.pt2", "-o", path, "--verify", "--explain", tmp_path / "e.json")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "small.pt2: the compiled model computes something else than the model in PyTorch 2." in err
    assert "found relative error" in err
    assert names(tmp_path) == ["m.so"]
    assert path.read_text() == "old"


def test_verification_in_python(models: Path) -> None:
    compiled = pconvgen.compile(models / "two.pt2")
    result = verify(compiled, seeds=(3, 4))
    assert isinstance(result, Verification)
    assert result.passed
    assert result.max_relative_error < 1e-6
    assert result.seeds == (3, 4)

    def tampered(change: Any) -> Any:
        judge = dataclasses.replace(
            compiled.imported.judge, run=lambda inputs: change(compiled.imported.reference(inputs))
        )
        imported = dataclasses.replace(compiled.imported, judge=judge)
        return dataclasses.replace(compiled, imported=imported)

    wrong = verify(tampered(lambda outputs: outputs | {"scores": outputs["scores"] * 1.01}))
    assert not wrong.passed
    assert wrong.output == "scores"
    assert wrong.max_relative_error == pytest.approx(0.01, rel=0.1)
    unknown = verify(tampered(lambda outputs: outputs | {"scores": outputs["scores"] * np.nan}))
    assert np.isnan(unknown.max_relative_error)
    assert not unknown.passed
    with pytest.raises(PconvgenError, match="differ from the reference"):
        verify(tampered(lambda outputs: outputs | {"scores": outputs["scores"][0]}))
    with pytest.raises(ValueError, match="at least one seed"):
        verify(compiled, seeds=())


def test_relative_errors() -> None:
    reference = {"a": np.array([1.0, -4.0], "float32"), "zero": np.zeros(2, "float32"), "none": np.zeros((0,))}
    actual = {"a": np.array([1.0, -4.4], "float32"), "zero": np.zeros(2, "float32"), "none": np.zeros((0,))}
    errors = relative_errors(actual, reference)
    assert errors["a"] == pytest.approx(0.1)
    assert errors["zero"] == errors["none"] == 0
    assert relative_errors({"zero": np.full(1, 1e-6)}, {"zero": np.zeros(1)})["zero"] > 1
    assert relative_errors({"a": np.array([np.inf])}, {"a": np.ones(1)})["a"] == np.inf


def test_what_is_not_finite_has_to_be_so_in_both() -> None:
    reference = np.array([np.nan, np.inf, -np.inf, 2.0])
    assert relative_errors({"a": reference.copy()}, {"a": reference})["a"] == 0
    assert relative_errors({"a": np.array([np.nan, np.inf, -np.inf, 3.0])}, {"a": reference})["a"] == 0.5
    assert np.isnan(relative_errors({"a": np.array([0, np.inf, -np.inf, 2.0])}, {"a": reference})["a"])
    assert np.isnan(relative_errors({"a": np.array([np.nan, np.nan, -np.inf, 2.0])}, {"a": reference})["a"])
    assert relative_errors({"a": np.array([np.nan, -np.inf, -np.inf, 2.0])}, {"a": reference})["a"] == np.inf


def densities(path: Path) -> dict[str, float]:
    """Of the weights in the file; `explain` shows those of the layers without their dead channels."""
    weights = torch_weights if path.suffix == ".pt2" else onnx_weights
    return {layer.name: density(layer.weight) for layer in weights.layers(weights.load(path), path.name)}


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_sparsify_files(suffix: str, models: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / f"pruned{suffix}"
    code, out, err = invoke(
        "sparsify", models / f"small{suffix}", "--structure", "simd_block", "--density", "0.5", "-o", path
    )
    assert (code, err) == (0, "")
    assert names(tmp_path) == [path.name]
    assert "left as it is: simd_block does not apply to depthwise" in out
    assert "the first convolution and the last linear layer stay dense" in out
    found = densities(path)
    assert found == {"stem": 1, "wide": 0.5, "depthwise": 1, "point": 0.5, "hidden": 0.5, "classes": 1}
    model = small()
    assert sparsify(model, "simd_block", 0.5) == found
    image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    (actual,) = load_model(path).reference({"image": image.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(actual, model(image).numpy(), rtol=1e-4, atol=1e-5)


class Mixed(nn.Module):
    """Layers that can be pruned beside some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.sound, self.rows = nn.Conv1d(8, 16, 3), nn.GRU(16, 16, batch_first=True)
        self.first, self.second, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        rows, _ = self.rows(self.sound(sound).transpose(1, 2))
        return self.last(self.second(self.first(rows)))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_sparsify_counts_what_it_leaves_alone(suffix: str, tmp_path: Path, invoke: Invoke) -> None:
    model, example, path = Mixed().eval(), torch.zeros(1, 8, 20), tmp_path / f"mixed{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == ".pt2":
            torch.export.save(torch.export.export(model, (example,)), path)
        else:
            torch.onnx.export(model, (example,), str(path), dynamo=False)
    recipe = Recipe("unstructured", 0.5, ("first", "second"))
    rows = sparsify_file(path, tmp_path / f"pruned{suffix}", recipe)
    assert [(row.name, row.note) for row in rows if "left" in row.note] == [
        ("sound", "left as it is: nothing skips the zeros of conv1d"),
        *[("rows", "left as it is: nothing skips the zeros of gru")] * 2,
    ]
    every = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)
    assert sum(row.weights for row in rows) == every
    options = ("--structure", "unstructured", "--density", "0.5", "--layers", "first,second", "-o", path)
    _, out, _ = invoke("sparsify", path, *options)
    assert f"{(every - 512) / every:.1%} of the weights are left".replace("%", " %") in out


def test_sparsify_options(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "pruned.onnx"
    options = ("--structure", "pattern", "--layers", "wide,po*", "--layers", "classes", "--random", "--seed", 3)
    code, out, _ = invoke("sparsify", models / "small.onnx", *options, "-o", path)
    assert code == 0
    assert "pattern does not apply to 1x1" in out
    assert "stay dense" not in out
    first = path.read_bytes()
    assert [name for name, share in densities(path).items() if share < 1] == [
        "wide",
        "point",
        "classes",
    ]
    assert invoke("sparsify", models / "small.onnx", *options, "-o", path)[0] == 0
    assert path.read_bytes() == first


def test_sparsify_keeps_everything_else_of_an_onnx_file(models: Path, tmp_path: Path) -> None:
    before = onnx.load(str(models / "small.onnx"))
    sparsify_file(models / "small.onnx", tmp_path / "m.onnx", Recipe("unstructured", 0.5, ("*",)))
    after = onnx.load(str(tmp_path / "m.onnx"))
    changed = []
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        if old.raw_data != new.raw_data:
            changed.append(old.name)
            a, b = numpy_helper.to_array(old), numpy_helper.to_array(new)
            assert ((b == a) | (b == 0)).all()
            new.raw_data = old.raw_data
    assert before == after
    assert changed == [f"{layer}.weight" for layer in LAYERS]


def test_sparsify_of_external_data(models: Path, tmp_path: Path, invoke: Invoke) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = onnx.load(str(models / "small.onnx"))
    onnx.save_model(model, str(source / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=100)
    assert names(source) == ["m.onnx", "w.bin"]
    for path in (tmp_path / "pruned.onnx", source / "m.onnx"):
        sparsify_file(source / "m.onnx", path, Recipe("filter", 0.5))
        assert path.with_name(f"{path.name}.data").is_file()
        assert densities(path)["wide"] == 0.5
        kept = onnx.load(str(path), load_external_data=False)
        inside = [tensor.name for tensor in kept.graph.initializer if tensor.data_location == TensorProto.DEFAULT]
        assert "stem.bias" in inside, "small tensors stay inside"
        assert "stem.weight" not in inside
    assert densities(tmp_path / "pruned.onnx")["wide"] == 0.5, "it has its own data"
    assert names(source) == ["m.onnx", "m.onnx.data", "w.bin"]


def test_sparsify_of_every_way_to_write_a_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes, tensors, weights = [], [], {}
    previous = "x"
    for kind in ("transB", "plain", "MatMul", "Transpose", "Identity", "Constant"):
        stored = rng.standard_normal((8, 8)).astype("float32")
        tensor = numpy_helper.from_array(stored, f"{kind}.weight")
        if kind == "MatMul":  # values in the typed field, as some exporters write them
            tensor = helper.make_tensor(tensor.name, TensorProto.FLOAT, stored.shape, stored.ravel().tolist())
        operand = tensor.name
        if kind == "Constant":
            nodes.append(helper.make_node("Constant", [], [operand], value=tensor))
        else:
            tensors.append(tensor)
        if kind in ("Transpose", "Identity"):
            operand = f"{kind}.copy"
            nodes.append(helper.make_node(kind, [tensor.name], [operand]))
        operator, options = (
            ("Gemm", {"transB": int(kind == "transB")}) if kind in ("transB", "plain") else ("MatMul", {})
        )
        nodes.append(helper.make_node(operator, [previous, operand], [f"{kind}.out"], name=kind, **options))
        previous, weights[kind] = f"{kind}.out", stored
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", previous)]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "m.onnx"))

    rows = sparsify_file(tmp_path / "m.onnx", tmp_path / "p.onnx", Recipe("filter", 0.25, ("*",)))
    assert [row.name for row in rows] == list(weights)
    after = onnx.load(str(tmp_path / "p.onnx")).graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.initializer}
    found |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in after.node if n.op_type == "Constant"}
    for kind, stored in weights.items():
        # Filters are rows where the matrix is used transposed, else columns.
        filters = stored if kind in ("transB", "Transpose") else stored.T
        expected = project("filter", np.ascontiguousarray(filters)[:, :, None, None], 0.25)[:, :, 0, 0]
        assert (found[f"{kind}.weight"] == (expected if kind in ("transB", "Transpose") else expected.T)).all(), kind


def test_sparsify_of_a_decomposed_program(tmp_path: Path) -> None:
    program = torch.export.export(small(), (torch.zeros(SHAPE),)).run_decompositions()
    torch.export.save(program, tmp_path / "m.pt2")
    rows = sparsify_file(tmp_path / "m.pt2", tmp_path / "p.pt2", Recipe("unstructured", 0.5, ("*",)))
    assert [(row.name, row.density) for row in rows] == [(name, 0.5) for name in LAYERS]
    weight = torch.export.load(tmp_path / "p.pt2").state_dict["hidden.weight"]
    assert int((weight != 0).sum()) == weight.numel() // 2


def test_sparsify_refuses_parametrised_modules() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    masked, computed = Small(), Small()
    prune.l1_unstructured(masked.wide, "weight", 0.5)
    parametrize.register_parametrization(computed.wide, "weight", Half())
    for model in (masked, computed):
        before = model.stem.weight.clone()
        with pytest.raises(PconvgenError, match="layer wide: the weight is computed by a parametrisation"):
            sparsify(model, "unstructured", 0.5, layers="*")
        assert (model.stem.weight == before).all()


def test_doctor_and_targets(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from pconvgen.devices import doctor

    code, out, err = invoke("targets")
    assert (code, err) == (0, "")
    assert "raspberry-pi-5" in out
    good = doctor.Check("python", "ok", "3.12")
    odd = doctor.Check("emulator", "warning", "none", "apt-get install qemu-user")
    bad = doctor.Check("linker", "failure", "none", "install gcc")
    for found, expected in (([good, odd], 0), ([good, bad], 1)):
        monkeypatch.setattr(doctor, "checks", lambda _, found=found: list(found))
        code, out, err = invoke("doctor")
        assert (code, err) == (expected, "")
        assert all((check.remedy or "") in out for check in found)


def test_interrupt_leaves_nothing_behind(models: Path, tmp_path: Path) -> None:
    """A real signal, while torch and TVM are at work."""
    command = [sys.executable, "-m", "pconvgen", "compile", str(models / "small.pt2"), "-o", str(tmp_path / "m.so")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert (out, err) == ("", "interrupted\n")
    assert not names(tmp_path)
