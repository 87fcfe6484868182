"""`pconvgen runtime build --ndk`, with another compiler where the NDK's would be: Android's C library is not here."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Invoke, invoker
from elf import needs_readelf, read_elf

from pconvgen.devices import toolchain
from pconvgen.devices.bundle import _package
from pconvgen.devices.ndk import FFI, SOURCES, STL, TRIPLE
from pconvgen.errors import PconvgenError
from pconvgen.targets.linker import PAGE_BYTES

pytestmark = pytest.mark.cross


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Invoke:
    return invoker(capfd)


@pytest.fixture
def ndk(tmp_path: Path) -> Path:
    """A folder like an NDK, whose compiler makes code for Linux."""
    try:
        compiler = toolchain.cross_compiler()
    except PconvgenError as error:
        pytest.skip(str(error))
    folder = tmp_path / "ndk"
    prebuilt = folder / "toolchains/llvm/prebuilt/linux-x86_64"
    (prebuilt / "bin").mkdir(parents=True)
    clang = prebuilt / "bin/clang++"
    # What stands for TVM's sources here has no functions.
    wrapped = f'exec {compiler} "$@" -Wl,--unresolved-symbols=ignore-all'
    clang.write_text(f'#!/bin/sh\n[ "$1" = --target={TRIPLE}24 ] && shift && {wrapped}\n')
    clang.chmod(0o755)
    stl = prebuilt / "sysroot/usr/lib" / TRIPLE / STL
    stl.parent.mkdir(parents=True)
    flags = ["-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none", f"-Wl,-soname,{STL}", "-o", str(stl)]
    toolchain.run_child([compiler, *flags], "the library", timeout_s=60)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder like TVM's repository: headers of tvm-ffi, and a file in each folder that is compiled."""
    folder = tmp_path / "tvm"
    for number, name in enumerate(name for names in SOURCES.values() for name in names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = f"#include <tvm/ffi/c_api.h>\nint part{number} = TVM_FFI_VERSION_MAJOR;\n"
        (folder / name / "same_name.cc").write_text(text)
    (folder / FFI / "src/ffi/backtrace_win.cc").write_text("#error not for Android\n")
    (folder / FFI / "include").symlink_to(_package("tvm_ffi") / "include")
    return folder


@needs_readelf
def test_a_bundle_for_the_c_library_of_android(ndk: Path, source: Path, tmp_path: Path, invoke: Invoke) -> None:
    command = ("runtime", "build", "--target", "android-arm64", "--ndk", ndk, "--tvm-source", source)
    code, out, err = invoke(*command, "-o", tmp_path / "b")
    assert code == 0, err
    assert "tested nowhere" in out
    libraries = {path.name: path for path in (tmp_path / "b/lib").iterdir()}
    assert libraries.keys() == {"libtvm_ffi.so", "libtvm_runtime.so", "libpconvgen.so", STL}
    assert "part0" in read_elf(libraries["libtvm_ffi.so"]).printed
    runtime = read_elf(libraries["libtvm_runtime.so"])
    assert [f"part{number}" in runtime.printed for number in range(6)] == [False, False, True, True, True, True]
    assert runtime.alignments == {PAGE_BYTES}
    server = read_elf(tmp_path / "b/rpc_server")
    assert server.needed >= {"libtvm_ffi.so", "libtvm_runtime.so"}
    assert "[$ORIGIN/lib]" in server.printed
    assert "exec ./rpc_server" in (tmp_path / "b/start.sh").read_text()
    assert (tmp_path / "b/start.sh").read_text().startswith("#!/system/bin/sh\n")


def test_what_is_missing_is_named(ndk: Path, source: Path, tmp_path: Path, invoke: Invoke) -> None:
    def error(*words: object) -> str:
        code, _, err = invoke("runtime", "build", "--target", "android-arm64", *words, "-o", tmp_path / "b")
        assert code != 0
        assert not (tmp_path / "b").exists()
        return err

    assert "--ndk and --tvm-source go together" in error("--ndk", ndk)
    assert "this is no NDK" in error("--ndk", source, "--tvm-source", source)
    assert "git clone --recursive --branch v0.27" in error("--ndk", ndk, "--tvm-source", tmp_path)
    (source / "src/runtime/vm/same_name.cc").write_text("#error broken\n")
    assert "compiling" in error("--ndk", ndk, "--tvm-source", source)
