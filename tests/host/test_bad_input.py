"""What users get wrong, and what machines do to them: one line that says what to do, and nothing left behind."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commands import Invoke
from onnx import TensorProto, helper, numpy_helper
from small import SHAPE, small
from torch import nn

import pconvgen
from pconvgen.affinity import core_numbers
from pconvgen.devices import toolchain
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.targets import linker

pytestmark = pytest.mark.host

FailsWith = Callable[..., None]


@pytest.fixture
def fails(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FailsWith:
    """Runs a command that must fail with this code, with these words in its only line, and without leaving a file."""

    # Temporary files are made where they are found afterwards.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def call(code: int, words: tuple[str, ...], *args: object) -> None:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        found, out, err = invoke(*args)
        assert (found, out) == (code, ""), err
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        for word in words:
            assert word in err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert not list(scratch.iterdir())

    return call


def png() -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def onnx_model(path: Path, operator: str = "Relu", shape: Any = (1, 4), domain: str = "", weight: Any = None) -> Path:
    """One operator, and a product with `weight` behind it."""
    nodes = [helper.make_node(operator, ["x"], ["h"], name="first", domain=domain)]
    tensors = []
    if weight is not None:
        tensors.append(numpy_helper.from_array(weight, "fc.weight"))
        nodes.append(helper.make_node("MatMul", ["h", "fc.weight"], ["y"], name="fc"))
    output = "h" if weight is None else "y"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", output)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets), str(path))
    return path


def pt2_model(path: Path, model: nn.Module, *example: torch.Tensor) -> Path:
    torch.export.save(torch.export.export(model.eval(), example), path)
    return path


class Fft(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


def truncated(models: Path, folder: Path, name: str) -> Path:
    data = (models / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    return folder / name


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def with_nan(path: Path) -> Path:
    model = small()
    with torch.no_grad():
        model.wide.weight[0, 0, 0, 0] = torch.nan
    return pt2_model(path, model, torch.zeros(SHAPE))


MODELS: dict[str, tuple[Callable[[Path, Path], Path], int, tuple[str, ...]]] = {
    "no file": (lambda models, folder: folder / "no.pt2", 2, ("no.pt2: no such file", "check the path")),
    "folder": (lambda models, folder: folder, 2, ("unknown model format", "export the model")),
    "truncated pt2": (
        lambda models, folder: truncated(models, folder, "small.pt2"),
        1,
        ("small.pt2", "copy or export"),
    ),
    "truncated onnx": (
        lambda models, folder: truncated(models, folder, "small.onnx"),
        1,
        ("small.onnx", "copy or export the file again"),
    ),
    "picture as pt2": (lambda models, folder: written(folder / "p.pt2", png()), 1, ("p.pt2", "no zip", "export the")),
    "picture as onnx": (
        lambda models, folder: written(folder / "p.onnx", png()),
        1,
        ("p.onnx: this is not a valid ONNX model", "export the file again"),
    ),
    "text as onnx": (lambda models, folder: written(folder / "t.onnx", b"a text\n" * 9), 1, ("t.onnx", "export the")),
    "empty onnx": (lambda models, folder: written(folder / "e.onnx", b""), 1, ("e.onnx",)),
    "empty pt2": (lambda models, folder: written(folder / "e.pt2", b""), 1, ("e.pt2", "export the model")),
    "weights": (lambda models, folder: written(folder / "w.pth", b""), 2, ("w.pth", "torch.export.save")),
    "picture": (lambda models, folder: written(folder / "p.png", png()), 2, ("p.png: unknown model format", "export")),
    "unknown operator in onnx": (
        lambda models, folder: onnx_model(folder / "m.onnx", "Magic", domain="my.ops"),
        1,
        ("m.onnx: layer first: operator my.ops.Magic is not supported", "replace it"),
    ),
    "unknown operator in pt2": (
        lambda models, folder: pt2_model(folder / "m.pt2", Fft(), torch.zeros(1, 4)),
        1,
        ("m.pt2", "fft", "is not supported", "replace it"),
    ),
    "NaN in pt2": (
        lambda models, folder: with_nan(folder / "m.pt2"),
        1,
        ("m.pt2: layer wide: weight is not finite (found 1 NaN", "check the training"),
    ),
    "NaN in onnx": (
        lambda models, folder: onnx_model(folder / "m.onnx", weight=np.full((4, 4), np.inf, "float32")),
        1,
        ("m.onnx: layer fc: weight is not finite", "check the training"),
    ),
    "no size": (
        lambda models, folder: onnx_model(folder / "m.onnx", shape=(0, 4)),
        2,
        ("m.onnx: input x has dynamic dimensions (found ?x4", "--input x=N,4"),
    ),
    "dynamic": (
        lambda models, folder: onnx_model(folder / "m.onnx", shape=("n", 4)),
        2,
        ("m.onnx: input x has dynamic dimensions", "give its shape: --input x=N,4"),
    ),
    "complex numbers": (
        lambda models, folder: pt2_model(folder / "m.pt2", nn.Flatten(), torch.zeros(1, 4, dtype=torch.complex64)),
        1,
        ("m.pt2: input", "complex64", "float32"),
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_models(case: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    make, code, words = MODELS[case]
    path = make(models, tmp_path)
    fails(code, words, "compile", path, "-o", tmp_path / "out.so", "--explain", tmp_path / "e.json")
    fails(code, words, "explain", path, "--json", tmp_path / "e.json")


@pytest.mark.parametrize("case", ["no file", "truncated pt2", "truncated onnx", "picture as onnx", "NaN in pt2"])
def test_bad_models_to_prune(case: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    make, code, words = MODELS[case]
    path = make(models, tmp_path)
    fails(code, words, "sparsify", path, "--structure", "pattern", "-o", tmp_path / f"out{path.suffix}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "cortexa76"), ("unknown target (found cortexa76", "did you mean cortex-a76?")),
        (("--target", "raspberry-pi-4000"), ("did you mean raspberry-pi-4?",)),
        (("--input", "image"), ("--input does not parse", "--input x=1,3,224,224")),
        (("--input", "image=1,3,a,8"), ("--input does not parse", "--input x=1,3,224,224")),
        (("--input", "picture=1,3,8,8"), ("small.pt2: the model has no such input (found picture, expected image)",)),
        (("--input", "image=1,3,8"), ("small.pt2: the shape of input image has the wrong rank", "--input image=")),
        (("--input", "image=1,3,9,9"), ("small.pt2: input image has a fixed shape", "export the model")),
        (("-o", "small.pt2"), ("small.pt2: the output would replace another file", "rename it")),
        (("--explain", "out.so"), ("out.so: the output would replace another file", "rename it")),
    ],
)
def test_bad_options(
    options: tuple[str, str],
    words: tuple[str, ...],
    models: Path,
    tmp_path: Path,
    fails: FailsWith,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(models / "small.pt2", tmp_path)
    monkeypatch.chdir(tmp_path)
    fails(2, words, "compile", "small.pt2", "-o", "out.so", *options)


@pytest.mark.parametrize("option", ["-o", "--explain"])
@pytest.mark.parametrize("path", ["/proc/out.so", "/nowhere/out.so", "/tmp"])
def test_unwritable_outputs(path: str, option: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    words = (f"{path}: cannot be written", "choose another output path")
    outputs = {"-o": str(tmp_path / "m.so"), option: path}
    fails(1, words, "compile", models / "small.pt2", *(word for pair in outputs.items() for word in pair))


@pytest.mark.parametrize("option", ["run --input x.npy --output", "bench --json", "explain --json"])
def test_unwritable_results(option: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    command, *rest = option.split()
    fails(1, ("/proc/y.npz: cannot be written", "choose"), command, models / "small.so", *rest, "/proc/y.npz")


def test_full_disk(models: Path, tmp_path: Path, fails: FailsWith, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(1, ("/dev/full: cannot be written", "free some space"), "explain", models / "small.so", "--json", "/dev/full")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "m.so"
    monkeypatch.setattr(shutil, "copyfile", full)
    words = ("m.so: cannot be written (found No space left on device)", "free some space")
    fails(1, words, "compile", models / "small.pt2", "-o", output)
    monkeypatch.setattr(Path, "write_bytes", full)
    words = ("p.pt2: cannot be written (found No space left on device)", "free some space")
    arguments = ("sparsify", models / "small.pt2", "--structure", "filter", "-o", tmp_path / "p.pt2")
    fails(1, words, *arguments)


def test_no_linker(models: Path, tmp_path: Path, fails: FailsWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linker, "_candidates", lambda _platform: iter(()))
    for target, remedy in (("host", "install gcc or clang"), ("android-arm64", "ANDROID_NDK_HOME")):
        words = (f"no linker for {target}", remedy)
        fails(1, words, "compile", models / "small.pt2", "-o", tmp_path / "m.so", "--target", target)


def test_no_emulator(models: Path, tmp_path: Path, fails: FailsWith, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if "qemu" in name else which(name))
    np.save(tmp_path / "x.npy", np.zeros(SHAPE, "float32"))
    words = ("no emulator for ARM programs", "apt-get install qemu-user")
    fails(1, words, "run", models / "arm.so", "--input", tmp_path / "x.npy")
    fails(1, words, "bench", models / "arm.so")
    fails(1, words, "compile", models / "small.pt2", "--target", "cortex-a53", "-o", tmp_path / "m.so", "--verify")


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def npy(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


IMAGE = np.zeros(SHAPE, "float32")

INPUTS: dict[str, tuple[Callable[[Path], Path], int, tuple[str, ...]]] = {
    "no file": (lambda folder: folder / "no.npy", 2, ("no.npy: no such file", "check the path")),
    "folder": (lambda folder: folder, 1, ("this is not a file of arrays", "write the input again")),
    "text": (
        lambda folder: written(folder / "x.npy", b"a text\n"),
        1,
        ("x.npy", "numpy.save", "write the input again"),
    ),
    "other archive": (
        lambda folder: pt2_model(folder / "m.pt2", nn.ReLU(), torch.zeros(1)),
        1,
        ("m.pt2: this is not a file of arrays", "numpy.save"),
    ),
    "cut": (
        lambda folder: written(folder / "x.npy", npy(folder / "all.npy", IMAGE).read_bytes()[:200]),
        1,
        ("x.npy: this is not a file of arrays", "write the input again"),
    ),
    "cut archive": (
        lambda folder: written(folder / "x.npz", npz(folder / "all.npz", image=IMAGE).read_bytes()[:200]),
        1,
        ("x.npz: this is not a file of arrays", "write the input again"),
    ),
    "objects": (lambda folder: npy(folder / "x.npy", np.array([{}])), 1, ("x.npy", "without objects in it")),
    "shape": (
        lambda folder: npy(folder / "x.npy", IMAGE[0]),
        1,
        ("small.so: input image does not fit (found float32 (3, 8, 8), expected float32 (1, 3, 8, 8))", "convert"),
    ),
    "dtype": (
        lambda folder: npy(folder / "x.npy", IMAGE.astype("complex64")),
        1,
        ("small.so: input image is not what the model takes (found complex64", "expected float32", "convert it"),
    ),
    "name": (
        lambda folder: npz(folder / "x.npz", picture=IMAGE),
        1,
        ("small.so: wrong inputs (found picture, expected image)", "by the name"),
    ),
    "too many": (lambda folder: npz(folder / "x.npz", image=IMAGE, b=IMAGE), 1, ("found b, image, expected image",)),
    "none": (lambda folder: npz(folder / "x.npz"), 1, ("found none, expected image",)),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_inputs(case: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    make, code, words = INPUTS[case]
    path = make(tmp_path)
    fails(code, words, "run", models / "small.so", "--input", path, "--output", tmp_path / "y.npz")


def test_one_array_for_two_inputs(models: Path, tmp_path: Path, fails: FailsWith) -> None:
    path = npy(tmp_path / "x.npy", np.zeros((1, 4), "float32"))
    words = ("x.npy: the model has several inputs (found one array, expected left, right)", "numpy.savez")
    fails(2, words, "run", models / "two.so", "--input", path)


def test_output_that_is_no_archive(models: Path, tmp_path: Path, fails: FailsWith) -> None:
    path = npy(tmp_path / "x.npy", IMAGE)
    words = ("y.npy: the output is an archive", ".npz")
    fails(2, words, "run", models / "small.so", "--input", path, "--output", tmp_path / "y.npy")


def half(models: Path, folder: Path) -> Path:
    """A library whose code is cut off behind the manifest."""
    from pconvgen.manifest import MARK

    data = (models / "small.so").read_bytes()
    return written(folder / "m.so", data[: data.index(MARK) + 8000])


def damaged(models: Path, folder: Path) -> Path:
    from pconvgen.manifest import MARK

    data = (models / "small.so").read_bytes()
    return written(folder / "m.so", data.replace(MARK + b"0", MARK + b"x"))


LIBRARIES: dict[str, tuple[Callable[[Path, Path], Path], tuple[str, ...]]] = {
    "no file": (lambda models, folder: folder / "no.so", ("no.so: cannot be read",)),
    "text": (lambda models, folder: written(folder / "m.so", b"a text\n"), ("m.so: no pconvgen manifest", "compile")),
    "empty": (lambda models, folder: written(folder / "m.so", b""), ("m.so: no pconvgen manifest", "compile the")),
    "no manifest": (
        lambda models, folder: written(folder / "m.so", (models / "small.so").read_bytes()[:4000]),
        ("m.so: no pconvgen manifest", "compile the model again"),
    ),
    "damaged manifest": (damaged, ("m.so: the manifest is damaged", "compile the model again")),
}


@pytest.mark.parametrize("case", LIBRARIES)
def test_bad_libraries(case: str, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    make, words = LIBRARIES[case]
    path, image = make(models, tmp_path), npy(tmp_path / "x.npy", IMAGE)
    fails(1, words, "run", path, "--input", image)
    fails(1, words, "bench", path)
    fails(1, words, "explain", path)


def test_library_that_is_cut_behind_its_manifest(models: Path, tmp_path: Path, fails: FailsWith) -> None:
    path = half(models, tmp_path)
    fails(1, (f"{path}: this library is cut short", "compile the model again"), "bench", path)


def test_library_of_another_machine(models: Path, tmp_path: Path, fails: FailsWith) -> None:
    image = npy(tmp_path / "x.npy", IMAGE)
    words = ("arm.so: the library has code for another processor", "use the emulated device")
    fails(1, words, "run", models / "arm.so", "--input", image, "--device", "local")
    fails(1, words, "bench", models / "arm.so", "--device", "local")
    words = ("small.so: the library has code for another processor", "use the local device")
    fails(1, words, "run", models / "small.so", "--input", image, "--device", "emulated")
    fails(2, ("unknown device (found lokal", "did you mean local?"), "bench", models / "arm.so", "--device", "lokal")


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_impossible_threads(threads: int, models: Path, tmp_path: Path, fails: FailsWith) -> None:
    words = (f"impossible number of threads (found {threads}, expected 1 to ", "no more threads than")
    image = npy(tmp_path / "x.npy", IMAGE)
    fails(2, words, "bench", models / "small.so", "--threads", threads)
    fails(2, words, "run", models / "small.so", "--input", image, "--threads", threads)
    fails(2, ("one thread", f"found {threads}"), "bench", models / "arm.so", "--threads", threads)


@pytest.mark.parametrize(
    ("cores", "words"),
    [
        ("", ("this is no set of cores (found ''", "numbers and ranges", "this machine has the cores 0")),
        ("two", ("this is no set of cores (found 'two'", "such as 0-3")),
        ("3-1", ("this is no set of cores (found '3-1'",)),
        ("0,4000", ("no such cores (found 4000, expected some of 0", "name cores that this machine has")),
    ],
)
def test_impossible_cores(cores: str, words: tuple[str, ...], models: Path, tmp_path: Path, fails: FailsWith) -> None:
    image = npy(tmp_path / "x.npy", IMAGE)
    fails(2, words, "bench", models / "small.so", "--cores", cores)
    fails(2, words, "run", models / "small.so", "--input", image, "--cores", cores)


def test_more_threads_than_chosen_cores(models: Path, fails: FailsWith) -> None:
    words = ("impossible number of threads (found 2, expected 1 to 1)", "no more threads than cores")
    fails(2, words, "bench", models / "small.so", "--cores", core_numbers()[0], "--threads", 2)


def test_cores_of_an_emulated_device(models: Path, tmp_path: Path, fails: FailsWith) -> None:
    words = ("an emulated device has no cores to choose from (found 0)", "leave --cores out")
    fails(2, words, "bench", models / "arm.so", "--cores", "0")
    fails(2, words, "run", models / "arm.so", "--input", npy(tmp_path / "x.npy", IMAGE), "--cores", "0")


def test_models_and_libraries_have_other_options(models: Path, fails: FailsWith) -> None:
    words = ("small.so: --target, --input, --records and --latency are for models", "leave them out")
    fails(2, words, "explain", models / "small.so", "--target", "host")
    fails(
        2,
        ("m.onnx: the output has another format", "a .pt2 file"),
        "sparsify",
        models / "small.pt2",
        "--structure",
        "filter",
        "-o",
        "m.onnx",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--structure", "patern"), ("unknown structure (found patern, expected one of filter, pattern",)),
        (("--structure", "filter", "--density", "0"), ("density is out of range", "give the share")),
        (("--structure", "filter", "--density", "25"), ("density is out of range", "e.g. 0.25")),
        (
            ("--structure", "filter", "--layers", "conv*"),
            ("small.onnx: no layer has such a name", "found conv*", "stem"),
        ),
    ],
)
def test_bad_recipes(
    options: tuple[str, ...], words: tuple[str, ...], models: Path, tmp_path: Path, fails: FailsWith
) -> None:
    fails(2, words, "sparsify", models / "small.onnx", *options, "-o", tmp_path / "p.onnx")


@pytest.fixture(scope="module")
def compiled(models: Path) -> pconvgen.CompiledModel:
    return pconvgen.compile(models / "small.pt2")


def test_arrays_in_any_memory_layout(compiled: pconvgen.CompiledModel) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    tensor = torch.from_numpy(image)
    with torch.no_grad():
        expected = small()(tensor).numpy()
    misaligned = np.frombuffer(b"\0" + image.tobytes(), "float32", offset=1).reshape(SHAPE)
    assert misaligned.ctypes.data % 4
    frozen = image.copy()
    frozen.flags.writeable = False
    for array in (
        misaligned,
        frozen,
        np.repeat(image, 2, axis=3)[..., ::2],
        image[..., ::-1].copy()[..., ::-1],
        image[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
        np.asfortranarray(image),
        np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.broadcast_to(image, (3, *SHAPE))[1],
        tensor,
        image.astype(">f4"),
        image.tolist(),
        tensor.double().requires_grad_(),
        tensor.to(memory_format=torch.channels_last),
        tensor.repeat_interleave(2, dim=2)[:, :, ::2],
        torch.cat([torch.zeros(1), tensor.reshape(-1)])[1:].reshape(SHAPE),
    ):
        np.testing.assert_allclose(compiled.run(array)["output"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(compiled.run(np.asfortranarray(image), threads=1)["output"], expected, 1e-4, 1e-5)


BAD_ARRAYS: dict[str, tuple[Any, str]] = {
    "dtype": (IMAGE.astype("complex64"), r"found complex64 .*expected float32 \(1, 3, 8, 8\)"),
    "too large": (np.full(SHAPE, 1e39), r"input image is not what the model takes \(found 1e\+39 does not fit float32"),
    "shape": (IMAGE[..., 1:], r"found float32 \(1, 3, 8, 7\), expected float32 \(1, 3, 8, 8\)\); convert"),
    "scalar": (0.0, r"found float32 \(\)"),
    "transposed": (torch.zeros(1, 8, 8, 3), r"found float32 \(1, 8, 8, 3\)"),
    "ragged": ([[1.0], [1.0, 2.0]], "input image is not what the model takes .*inhomogeneous"),
    "name": ({"picture": IMAGE}, r"wrong inputs \(found picture, expected image\); give each input by the name"),
    "no string": ({1: IMAGE, "image": IMAGE}, r"wrong inputs \(found 1, image, expected image\)"),
    "nothing": ({}, r"wrong inputs \(found none, expected image\)"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case: str, compiled: pconvgen.CompiledModel) -> None:
    array, message = BAD_ARRAYS[case]
    for call in (compiled.run, compiled.bench):
        with pytest.raises(PconvgenError, match=message):
            call(array)


def test_bad_run_options(compiled: pconvgen.CompiledModel) -> None:
    for call in (compiled.run, compiled.bench):
        for threads in (0, -1, 1000):
            with pytest.raises(UsageError, match=f"impossible number of threads .found {threads}, expected 1 to"):
                call(IMAGE, threads=threads)
        for cores in ([], [4000]):
            with pytest.raises(UsageError, match="no such cores"):
                call(IMAGE, cores=cores)
