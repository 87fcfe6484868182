"""Libraries for ARM: what is in them, and that they run under emulation with the right results."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elf import needs_readelf, read_elf

from pconvgen.devices import Model, get_device
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.targets.linker import PAGE_BYTES, Linker, find_linker, find_linkers, library_linker, link
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.llvm import llvm_target

pytestmark = pytest.mark.cross

TARGET_NAMES = ("cortex-a76", "android-arm64")
LIBM = {"cortex-a76": "libm.so.6", "android-arm64": "libm.so"}
LINKERS = [(name, linker) for name in TARGET_NAMES for linker in find_linkers(get_target(name).platform)]
SHAPE = (1, 3, 8, 8)
FILTERS = 4
MULTIPLICATIONS = FILTERS * 9 * SHAPE[1] * SHAPE[2] * SHAPE[3]

needs_cross_compiler = pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc"), reason="aarch64-linux-gnu-gcc is not installed"
)


@pytest.fixture(scope="module")
def emulated() -> EmulatedDevice:
    device = EmulatedDevice(timeout_s=120)
    if reason := device.available():
        pytest.skip(reason)
    return device


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((FILTERS, SHAPE[1], 3, 3)).astype("float32")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPE).astype("float32")


@pytest.fixture(scope="module")
def executables(weight: np.ndarray) -> dict[str, Any]:
    """softmax(relu(conv(x))) and relu(conv(x)); the exponential needs libm."""
    from tvm import relax

    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            features = builder.emit(relax.op.nn.relu(relax.op.nn.conv2d(x, relax.const(weight), padding=1)))
            probabilities = builder.emit(relax.op.nn.softmax(features, axis=1))
            output = builder.emit_output(relax.Tuple([probabilities, features]))
        builder.emit_func_output(output)
    return {name: _compiled(builder.get(), name) for name in TARGET_NAMES}


def _compiled(module: Any, target_name: str) -> Any:
    import tvm
    from tvm import relax

    target = llvm_target(get_target(target_name))
    with target:
        return tvm.compile(relax.get_pipeline("zero")(module), target)


def _exported(executables: dict[str, Any], target_name: str, linker: Linker, path: Path) -> Model:
    executables[target_name].export_library(str(path), fcompile=library_linker(get_target(target_name), linker))
    return Model(path, (("x", SHAPE, "float32"),), ("probabilities", "features"), target_name)


@pytest.fixture(scope="module")
def model(executables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Model:
    linker = find_linker(get_target("cortex-a76"))
    return _exported(executables, "cortex-a76", linker, tmp_path_factory.mktemp("model") / "model.so")


def _assert_right(outputs: dict[str, np.ndarray], image: np.ndarray, weight: np.ndarray) -> None:
    features = torch.relu(torch.conv2d(torch.from_numpy(image), torch.from_numpy(weight), padding=1))
    np.testing.assert_allclose(outputs["features"], features.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], torch.softmax(features, 1).numpy(), rtol=1e-5, atol=1e-6)


def _assert_loadable_everywhere(path: Path, libm: str) -> None:
    elf = read_elf(path)
    assert elf.needed == {libm}
    assert elf.alignments == {PAGE_BYTES}
    assert elf.hashes == {"HASH", "GNU_HASH"}
    assert not elf.text_relocations
    assert elf.undefined == {"TVMFFIErrorSetRaisedFromCStrParts", "expf"}


@needs_readelf
@pytest.mark.parametrize(("name", "linker"), LINKERS, ids=[f"{name}-{linker.name}" for name, linker in LINKERS])
def test_library_of_every_linker(
    name: str, linker: Linker, executables: dict[str, Any], emulated: EmulatedDevice, image: np.ndarray,
    weight: np.ndarray, tmp_path: Path,
) -> None:  # fmt: skip
    model = _exported(executables, name, linker, tmp_path / "model.so")
    _assert_loadable_everywhere(model.path, LIBM[name])
    first = model.path.read_bytes()
    again = _exported(executables, name, linker, tmp_path / "elsewhere.so")
    assert again.path.read_bytes() == first, "equal inputs must give equal files"
    assert not any(trace in first for trace in (b"/tmp", b"/home", b"elsewhere", str(tmp_path).encode()))
    _assert_right(emulated.run(model, {"x": image}), image, weight)


@needs_readelf
@needs_cross_compiler
def test_library_of_an_ndk(executables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not an NDK, but a compiler of the same options where an NDK's would be.
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    clang.parent.mkdir(parents=True)
    clang.write_text(
        '#!/bin/sh\n[ "$1" = --target=aarch64-linux-android24 ] && shift && exec aarch64-linux-gnu-gcc "$@"\n'
    )
    clang.chmod(0o755)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    linker = find_linker(get_target("android-arm64"))
    assert linker.name == "NDK clang"
    _assert_loadable_everywhere(_exported(executables, "android-arm64", linker, tmp_path / "m.so").path, "libm.so")


def test_instructions_are_counted_and_repeat(
    model: Model, emulated: EmulatedDevice, image: np.ndarray, weight: np.ndarray
) -> None:
    first = emulated.bench(model, {"x": image})
    assert first.instructions is not None
    assert first.instructions == sum(first.classes.values())
    assert first.classes["vector_fma"] == MULTIPLICATIONS // 4
    assert (first.median_ms, first.min_ms, first.times_ms) == (None, None, ()), "emulation has no honest times"
    assert emulated.bench(model, {"x": image}) == first
    outputs, span = emulated.profile(model, {"x": image})
    _assert_right(outputs, image, weight)
    blocks = span.blocks
    assert sum(block.runs * len(block.code) for block in blocks) == first.instructions
    by_element = sum(block.runs for block in blocks for code in block.code if code & 0xFFC0F400 == 0x4F801000)
    by_vector = sum(block.runs for block in blocks for code in block.code if code & 0xFFE0FC00 == 0x4E20CC00)
    assert 0 < by_element + by_vector <= first.classes["vector_fma"], "the code itself, in the byte order of A64"
    with pytest.raises(UsageError, match="one thread"):
        emulated.bench(model, {"x": image}, threads=2)


def test_inputs_in_any_memory_layout(
    model: Model, emulated: EmulatedDevice, image: np.ndarray, weight: np.ndarray
) -> None:
    _assert_right(emulated.run(model, {"x": np.asfortranarray(image)}, threads=2), image, weight)


def test_several_inputs_of_several_dtypes(emulated: EmulatedDevice, tmp_path: Path) -> None:
    from tvm import relax

    kinds = {"half": "float16", "long": "int64", "byte": "uint8", "flag": "bool"}
    variables = [relax.Var(name, relax.TensorType((2, 3), dtype)) for name, dtype in kinds.items()]
    half, long, byte, flag = variables
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        with builder.dataflow():
            parts = [relax.op.add(half, half), relax.op.add(long, long), relax.op.add(byte, byte)]
            output = builder.emit_output(
                relax.Tuple([*map(builder.emit, parts), builder.emit(relax.op.logical_not(flag))])
            )
        builder.emit_func_output(output)
    target = get_target("cortex-a76")
    _compiled(builder.get(), target.name).export_library(str(tmp_path / "m.so"), fcompile=library_linker(target))
    shapes = tuple((name, (2, 3), dtype) for name, dtype in kinds.items())
    inputs = {name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in kinds.items()}
    outputs = emulated.run(Model(tmp_path / "m.so", shapes, tuple(kinds), target.name), inputs)
    assert {name: str(array.dtype) for name, array in outputs.items()} == kinds
    for name in ("half", "long", "byte"):
        np.testing.assert_array_equal(outputs[name], 2 * inputs[name])
    np.testing.assert_array_equal(outputs["flag"], ~inputs["flag"])


@needs_readelf
@needs_cross_compiler
@pytest.mark.parametrize(("name", "linker"), LINKERS, ids=[f"{name}-{linker.name}" for name, linker in LINKERS])
def test_both_system_libraries_are_found(name: str, linker: Linker, emulated: EmulatedDevice, tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text(
        "#include <string.h>\nfloat expf(float);"
        "float f(char *to, const char *from, size_t n) { memcpy(to, from, n); return expf(n); }"
    )
    subprocess.run(["aarch64-linux-gnu-gcc", "-O1", "-fPIC", "-c", "m.c"], cwd=tmp_path, check=True)
    link([tmp_path / "m.o"], tmp_path / "m.so", get_target(name), linker)
    assert read_elf(tmp_path / "m.so").needed == {LIBM[name], LIBM[name].replace("libm", "libc")}
    # It loads, or the message would be of a library that was not found.
    with pytest.raises(PconvgenError, match="is not a compiled model"):
        emulated.run(Model(tmp_path / "m.so", (), (), name), {})


@needs_cross_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("__builtin_trap();", "crashed .found SIGILL|crashed .found SIGTRAP"),
        ("*(volatile int *)8 = 1;", r"crashed \(found SIGSEGV.*Segmentation fault"),
        ("for (;;) asm volatile(\"\");", "did not end"),
    ],
)  # fmt: skip
def test_bad_libraries_are_messages(body: str, message: str, emulated: EmulatedDevice, tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text(f"__attribute__((constructor)) static void bad(void) {{ {body} }}")
    command = ["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-nostdlib", "-o", "m.so", "m.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(PconvgenError, match=message):
        EmulatedDevice(timeout_s=2).run(Model(tmp_path / "m.so", (), (), "cortex-a76"), {})


def test_damaged_library_is_a_message(
    model: Model, emulated: EmulatedDevice, image: np.ndarray, tmp_path: Path
) -> None:
    data = model.path.read_bytes()
    damages = ((data[:4000], "this library is cut short"), (data[:4000].ljust(len(data), b"\0"), "emulated model"))
    for index, (damaged, message) in enumerate(damages):
        path = tmp_path / f"{index}.so"
        path.write_bytes(damaged)
        with pytest.raises(PconvgenError, match=message):
            emulated.run(Model(path, model.inputs, model.outputs, model.target), {"x": image})


@pytest.mark.skipif(platform.machine() == "aarch64", reason="ARM is this machine's own processor")
def test_library_of_another_processor_is_refused(model: Model, image: np.ndarray) -> None:
    with pytest.raises(PconvgenError, match=r"found aarch64, expected .*use the emulated device"):
        get_device("local").run(model, {"x": image})


def test_facts_promise_no_times(emulated: EmulatedDevice) -> None:
    facts = emulated.facts()
    assert facts["ghz"] is None
    assert str(facts["emulator"]).startswith("qemu ")
