"""Targets, linkers and what devices check before they run anything: all without TVM."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from pconvgen.devices import DEVICES, Model, get_device, toolchain
from pconvgen.devices.container import read_tensors, write_tensors
from pconvgen.devices.device import check_library, named_outputs, ordered_inputs
from pconvgen.devices.doctor import checks, numbers
from pconvgen.devices.process import run_child
from pconvgen.elf import machine_of, undefined_symbols
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.schedules import ISAS
from pconvgen.schedules.cores import CORES
from pconvgen.targets.host import core_of, cpu_flags
from pconvgen.targets.linker import NDK_VARIABLES, find_linker, find_linkers, library_linker, link
from pconvgen.targets.presets import TARGETS, get_target

ARM_NAMES = [name for name in TARGETS if name != "host"]
MODEL = Model(Path("m.so"), (("x", (2, 3), "float32"), ("n", (), "int64")), ("y",), "cortex-a76")


@pytest.mark.parametrize("name", ARM_NAMES)
def test_arm_presets_are_consistent(name: str) -> None:
    target = get_target(name)
    assert target.name == name
    assert target.core.isa.name == ("armv7a" if target.platform.endswith("32") else "neon")
    assert target.core.isa is ISAS[target.core.isa.name]
    triples = {
        "linux-arm64": "aarch64-linux-gnu",
        "android-arm64": "aarch64-linux-android",
        "linux-arm32": "armv7a-linux-gnueabihf",
        "android-arm32": "armv7a-linux-androideabi",
    }
    assert target.triple == triples[target.platform]
    assert not target.is_host


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"cortex-a67.*did you mean cortex-a7"):
        get_target("cortex-a67")
    with pytest.raises(UsageError, match="one of host, cortex-a53"):
        get_target("sparc")


def test_unknown_device_names_the_known() -> None:
    with pytest.raises(UsageError, match="did you mean local"):
        get_device("locale")
    assert [device.name for device in DEVICES.values()] == list(DEVICES)


@pytest.mark.parametrize(
    ("machine", "cpu", "flags", "core"),
    [
        ("aarch64", "neoverse-n1", "asimd", "neoverse-n1"),
        ("aarch64", "cortex-a76", "asimd", "cortex-a76"),
        ("aarch64", "carmel", "asimd", "neon"),
        ("x86_64", "znver4", "avx2 fma avx512f avx512vl", "avx512-zen4"),
        ("x86_64", "znver5", "avx2 fma avx512f avx512vl", "zen5"),
        ("x86_64", "sapphirerapids", "avx2 fma avx512f avx512vl", "sapphire-rapids"),
        ("x86_64", "rocketlake", "avx2 fma avx512f avx512vl", "avx512"),
        ("x86_64", "znver4", "avx2 fma", "avx2"),
        ("x86_64", "znver3", "avx2 fma", "zen3"),
        ("x86_64", "haswell", "avx2 fma", "avx2"),
    ],
)
def test_the_core_follows_what_the_kernel_allows(machine: str, cpu: str, flags: str, core: str) -> None:
    assert core_of(machine, cpu, cpu_flags(f"processor\t: 0\nflags\t\t: fpu {flags}\n")) is CORES[core]


def test_core_of_an_old_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="no kernels for this machine"):
        core_of("x86_64", "nehalem", frozenset({"sse4_2"}))


@pytest.mark.parametrize("name", ["cortex-a76", "android-arm64", "cortex-a7", "android-armv7a"])
def test_missing_linker_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.delenv("ANDROID_NDK_ROOT", raising=False)
    with pytest.raises(PconvgenError, match="pip install ziglang"):
        find_linker(get_target(name))


@pytest.mark.parametrize(
    ("name", "triple"), [("android-arm64", "aarch64-linux-android"), ("android-armv7a", "armv7a-linux-androideabi")]
)
def test_ndk_is_preferred_for_android(name: str, triple: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    clang.parent.mkdir(parents=True)
    clang.touch()
    monkeypatch.setenv("ANDROID_NDK_ROOT", str(tmp_path))
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    linker = find_linker(get_target(name))
    assert linker.how == "driver"
    assert linker.command == (str(clang), f"--target={triple}24")


def test_linker_takes_object_files_only(tmp_path: Path) -> None:
    target = get_target("cortex-a76")
    source = tmp_path / "devc.c"
    source.write_text("int main;")
    with pytest.raises(PconvgenError, match="not a file of a little-endian ELF platform"):
        link([source], tmp_path / "m.so", target)
    with pytest.raises(PconvgenError, match="object files only"):
        library_linker(target)(str(tmp_path / "m.so"), [], options=["-Iinclude"])


@pytest.mark.parametrize(
    ("name", "compiler", "machine"),
    [("cortex-a76", "aarch64-linux-gnu-gcc", "aarch64"), ("cortex-a7", "arm-linux-gnueabihf-gcc", "armv7l")],
)
def test_symbols_of_no_library_are_refused(name: str, compiler: str, machine: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} makes the object file")
    source, object_file, target = tmp_path / "a.c", tmp_path / "a.o", get_target(name)
    source.write_text(
        "float expf(float); float nowhere(float); extern int maybe __attribute__((weak));"
        "int *f(void) { return &maybe; } float g(float x) { return nowhere(expf(x)); }"
    )
    subprocess.run([compiler, "-fPIC", "-c", source, "-o", object_file], check=True)
    assert undefined_symbols([object_file]) - {"_GLOBAL_OFFSET_TABLE_"} == {"expf", "nowhere"}
    assert machine_of(object_file) == machine
    with pytest.raises(PconvgenError, match="no library on the device has \\(found nowhere"):
        link([object_file], tmp_path / "a.so", target)
    object_file.write_bytes(object_file.read_bytes()[:-100])
    with pytest.raises(PconvgenError, match="damaged object file"):
        undefined_symbols([object_file])


@pytest.mark.skipif(not find_linkers("linux-arm64"), reason="no linker for ARM Linux")
def test_linker_failure_is_shown(tmp_path: Path) -> None:
    object_file = tmp_path / "x.o"
    # An empty relocatable file for another processor (RISC-V is 243).
    object_file.write_bytes(
        struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 243, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0)
    )
    with pytest.raises(PconvgenError, match=r"failed for linux-arm64 \(found .*x\.o"):
        link([object_file], tmp_path / "x.so", get_target("cortex-a76"))


def test_inputs_are_checked_and_made_contiguous() -> None:
    x = np.arange(6, dtype="float32").reshape(3, 2).T
    ordered = ordered_inputs(MODEL, {"n": np.array(4), "x": x})
    assert ordered[0].flags.c_contiguous
    np.testing.assert_array_equal(ordered[0], x)
    assert ordered[1].shape == ()
    with pytest.raises(PconvgenError, match=r"wrong inputs \(found x, expected x, n\)"):
        ordered_inputs(MODEL, {"x": x})
    with pytest.raises(
        PconvgenError, match=r"input x does not fit \(found float32 \(3, 2\), expected float32 \(2, 3\)"
    ):
        ordered_inputs(MODEL, {"x": x.T, "n": np.array(4)})
    for given in (x.astype("float64"), x.tolist(), torch.tensor(x, requires_grad=True), torch.tensor(x).bfloat16()):
        (found, _) = ordered_inputs(MODEL, {"x": given, "n": 4})
        np.testing.assert_array_equal(found, x)
        assert found.dtype == "float32"


def test_number_of_outputs_is_checked() -> None:
    with pytest.raises(PconvgenError, match=r"found 2, expected 1 \(y\)"):
        named_outputs(MODEL, [np.zeros(1), np.zeros(1)])


def test_library_must_exist_and_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.so"
    model = Model(path, (), (), "host")
    with pytest.raises(PconvgenError, match="no such library"):
        check_library(model, "aarch64", "elsewhere")
    path.write_bytes(struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, *[0] * 11))
    check_library(model, "x86_64", "elsewhere")
    with pytest.raises(PconvgenError, match=r"found x86_64, expected aarch64.*elsewhere"):
        check_library(model, "aarch64", "elsewhere")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_tensors_survive_the_file(dtype: str, tmp_path: Path) -> None:
    arrays = [np.arange(6).reshape(2, 3).astype(dtype), np.array(1, dtype), np.zeros((0, 4), dtype)]
    write_tensors(tmp_path / "t", arrays)
    for written, read in zip(arrays, read_tensors(tmp_path / "t"), strict=True):
        assert read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", [np.arange(6)])
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-1])
    for name in ("t", "missing"):
        with pytest.raises(PconvgenError, match="unreadable"):
            read_tensors(tmp_path / name)
    with pytest.raises(PconvgenError, match="no such tensors"):
        write_tensors(tmp_path / "t", [np.array(["text"])])


def test_failures_of_programs_are_named() -> None:
    assert run_child(["echo", "yes"], "it", timeout_s=10) == "yes\n"
    with pytest.raises(PconvgenError, match=r"it crashed \(found SIGSEGV oh\)"):
        run_child(["sh", "-c", "echo oh >&2; kill -SEGV $$"], "it", timeout_s=10)
    with pytest.raises(PconvgenError, match=r"it failed \(found exit code 3\)"):
        run_child(["sh", "-c", "exit 3"], "it", timeout_s=10)
    with pytest.raises(PconvgenError, match="it did not end"):
        run_child(["sleep", "10"], "it", timeout_s=0.1)
    with pytest.raises(PconvgenError, match="it does not start"):
        run_child(["/nowhere/program"], "it", timeout_s=1)


@pytest.mark.parametrize("missing", ["qemu-aarch64", "aarch64-linux-gnu-g++"])
def test_missing_tools_are_a_reason_not_an_error(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith(missing) else which(name))
    toolchain.sysroot.cache_clear()
    reason = get_device("emulated").available()
    assert reason is not None
    assert "apt-get install" in reason


def test_runtime_out_of_reach_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PconvgenError, match=r"fetching TVM's runtime for ARM failed.*connect to a package index"):
        toolchain.runtime()
    assert not list(toolchain.cache_folder().iterdir()), "a failed fetch leaves nothing behind"


def test_doctor_answers_when_everything_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    for name in ("shutil.which", "pconvgen.devices.doctor.host_target", "importlib.metadata.version"):
        monkeypatch.setattr(name, broken)
    answers = checks()
    assert any(answer.status == "failure" and "broken" in answer.detail for answer in answers)
    assert len({answer.name for answer in answers}) == len(answers)


def test_doctor_refuses_the_ffi_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert numbers("0.1.15.post1") == (0, 1, 15)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.1.15.post1")
    (answer,) = [answer for answer in checks("cortex-a76") if answer.name == "apache-tvm-ffi"]
    assert answer.status == "failure"
    assert "0.1.14" in str(answer.remedy)


def test_doctor_says_what_adb_and_the_ndk_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers() -> dict[str, tuple[str, str]]:
        return {answer.name: (answer.status, answer.detail) for answer in checks() if answer.name in ("adb", "NDK")}

    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name == "adb" else which(name))
    for variable in NDK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert answers() == {
        "adb": ("warning", "adb is not installed; only --device adb:// takes it"),
        "NDK": ("ok", "none, and none is needed"),
    }
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    assert answers()["NDK"] == ("warning", "none where ANDROID_NDK_HOME points")
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    clang.parent.mkdir(parents=True)
    clang.touch()
    adb = tmp_path / "adb"
    adb.write_text("#!/bin/sh\necho Android Debug Bridge version 1.0.41\n")
    adb.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(adb) if name == "adb" else which(name))
    assert answers() == {"adb": ("ok", "1.0.41, for phones at the USB port"), "NDK": ("ok", str(clang))}
