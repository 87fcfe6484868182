"""What a phone or board needs to be measured on: TVM's runtime and the server of `native/rpc_server.cc`, in a folder.

TVM publishes its runtime for Linux with glibc only. Android has another C library; its bundle therefore brings
glibc's loader and libraries and starts the server through them, which needs nothing of the phone but its kernel.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pconvgen.devices import toolchain
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError, UsageError

SERVER, START, ABOUT = "rpc_server", "start.sh", "bundle.json"
LIBRARY, HEADER = "libpconvgen.so", "pconvgen.h"
"""What applications link with."""
FLAGS = ("-std=c++17", "-O2", "-s")
RUNTIME = f"apache-tvm {metadata.version('apache-tvm')}"
"""What libraries have to be compiled for."""
C_LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
LOADER = "ld-linux-aarch64.so.1"
BIONIC = ("libc", "libm")
"""Android's names of libraries that models ask for."""


@dataclass(frozen=True)
class Flavor:
    """A kind of bundle.

    Attributes
    ----------
    name: as users name it.
    machine: the processor family, as ELF files name it.
    brings_c: whether it brings a C library.
    tested: where it was run, for its notes.
    """

    name: str
    machine: str
    brings_c: bool
    tested: str


@dataclass(frozen=True)
class Parts:
    """What the programs of a bundle are made with.

    Attributes
    ----------
    compiler: the command that compiles C++.
    includes: folders with tvm-ffi's headers.
    libraries: TVM's, and others that they need; each may refer to those before it.
    """

    compiler: Sequence[str]
    includes: tuple[Path, ...]
    libraries: tuple[Path, ...]


FLAVORS = {
    flavor.name: flavor
    for flavor in (
        Flavor("aarch64-linux", "aarch64", False, "under qemu-user, with Debian's glibc"),
        Flavor("android-arm64", "aarch64", True, "under qemu-user with nothing but its own libraries; not on a phone"),
        Flavor("host", platform.machine(), False, "on this machine"),
    )
}


def flavor(name: str) -> Flavor:
    """The kind of bundle of that name.

    Raises
    ------
    UsageError: there is none.
    """
    if name in FLAVORS:
        return FLAVORS[name]
    if name.startswith(("armv7", "android-armv7", "android-arm32")):
        raise UsageError(
            f"no runtime for {name}",
            found="TVM publishes none for 32-bit ARM",
            expected=f"one of {', '.join(FLAVORS)}",
            remedy="build TVM's runtime for it from its repository, and link the compiled library with that",
        )
    raise UsageError("no such bundle", found=name, expected=f"one of {', '.join(FLAVORS)}")


def build(kind: Flavor, folder: Path, parts: Callable[[Path], Parts] | None = None) -> None:
    """Makes a bundle in a new or empty folder, of parts that are made in the folder given, or of what TVM publishes.

    Raises
    ------
    UsageError: the folder has something else in it.
    PconvgenError: TVM's runtime cannot be fetched, or there is no compiler.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise UsageError("the folder is not empty", file=folder, remedy="name a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        scratch = Path(name) / "bundle"
        libraries = scratch / "lib"
        libraries.mkdir(parents=True)
        made = parts(Path(name)) if parts else _published(kind)
        for path in made.libraries:
            shutil.copy(path, libraries)
        shutil.copy(_server(kind, made), scratch / SERVER)
        shutil.copy(_library(kind, made), libraries / LIBRARY)
        (scratch / "include").mkdir()
        shutil.copy(Path(__file__).parent / "native" / HEADER, scratch / "include")
        if kind.brings_c:
            _bring_c(libraries)
        start = scratch / START
        start.write_text(_start(kind))
        start.chmod(0o755)
        versions = {package: metadata.version(package) for package in (*toolchain.PACKAGES, "pconvgen")}
        about = {"bundle": kind.name, "machine": kind.machine, "versions": versions, "tested": kind.tested}
        (scratch / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)


def cached(kind: Flavor) -> Path:
    """A bundle for this machine to use itself, made once. Raises what `build` raises."""
    folder = toolchain.cache_folder() / f"bundle-{_server(kind, _published(kind)).name}"
    if not (folder / ABOUT).is_file():
        own = folder.with_name(f"{folder.name}-{os.getpid()}")
        build(kind, own)
        try:
            os.rename(own, folder)
        except OSError:  # another process was faster, and may be running it
            shutil.rmtree(own)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Short digests of a bundle's files, by their names in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths}


def _published(kind: Flavor) -> Parts:
    """What TVM publishes, and the compiler for it."""
    include = _package("tvm_ffi") / "include"
    if kind.name != "host":
        folder = toolchain.runtime()
        return Parts(_compiler(kind), (include,), tuple(folder / name for name in toolchain.LIBRARIES))
    ffi, *others = toolchain.LIBRARIES
    libraries = (_package("tvm_ffi") / "lib" / ffi, *(_package("tvm") / "lib" / name for name in others))
    return Parts(_compiler(kind), (include,), libraries)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PconvgenError(f"{name} is not installed", remedy="pip install pconvgen again")
    return Path(spec.submodule_search_locations[0])


def _server(kind: Flavor, parts: Parts) -> Path:
    return _compiled(parts, f"{SERVER}.cc", f"-{kind.name}", (), "$ORIGIN/lib")


def _library(kind: Flavor, parts: Parts) -> Path:
    flags = ("-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}")
    return _compiled(parts, "pconvgen.cc", f"-{kind.name}.so", flags, "$ORIGIN")


def _compiled(parts: Parts, source: str, suffix: str, flags: Sequence[str], found_in: str) -> Path:
    """What is made of a file of `native`; at run time it finds the libraries in a folder beside it."""
    includes = [word for folder in parts.includes for word in ("-isystem", str(folder))]
    libraries = [str(path) for path in reversed(parts.libraries)]
    return toolchain.compiled(
        parts.compiler,
        source,
        suffix,
        (*FLAGS, *flags, f'-DRUNTIME="{RUNTIME}"', *includes),
        ("-Wl,--no-as-needed,--allow-shlib-undefined", *libraries, f"-Wl,-rpath,{found_in}"),
    )


def _compiler(kind: Flavor) -> Sequence[str]:
    """The command that compiles C++ for a bundle.

    Where the bundle uses the C library of an unknown device, Zig is preferred: what it makes runs with the oldest one
    that TVM's libraries run with.

    Raises
    ------
    PconvgenError: there is none.
    """
    zig = importlib.util.find_spec("ziglang") is not None
    if zig and kind.name == "aarch64-linux":
        return (sys.executable, "-m", "ziglang", "c++", "-target", f"{kind.machine}-linux-gnu.2.28")
    if kind.name != "host":
        return (toolchain.cross_compiler(),)
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return (found,)
    if zig:
        return (sys.executable, "-m", "ziglang", "c++")
    raise PconvgenError("no C++ compiler", expected="c++", remedy="pip install ziglang, or apt-get install g++")


def _bring_c(libraries: Path) -> None:
    """Adds glibc with its loader, and libraries by the names that models for Android ask for, which lead to them."""
    compiler = toolchain.cross_compiler()
    for name in (LOADER, *C_LIBRARIES):
        found = run_child([compiler, f"-print-file-name={name}"], compiler, timeout_s=30).strip()
        if found == name:
            raise PconvgenError("the ARM compiler has no C library", expected=name, remedy=toolchain.APT_REMEDY)
        shutil.copy(os.path.realpath(found), libraries / name)
    (libraries / LOADER).chmod(0o755)
    for name in BIONIC:
        command = [compiler, "-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed"]
        command += ["-o", str(libraries / f"{name}.so"), f"-Wl,-soname,{name}.so", str(libraries / f"{name}.so.6")]
        run_child(command, f"making {name}.so", timeout_s=30)


def _start(kind: Flavor) -> str:
    """A shell script that starts the server with what it is given."""
    shell = "#!/system/bin/sh" if kind.name.startswith("android") else "#!/bin/sh"
    how = f"./lib/{LOADER} --library-path ./lib ./{SERVER}" if kind.brings_c else f"./{SERVER}"
    lines = (shell, "# Starts the server; it tells what it takes.", 'cd "${0%/*}" || exit 1', f'exec {how} "$@"', "")
    return "\n".join(lines)


def emulated_command(folder: Path, counts: Path | str) -> list[str]:
    """The command that starts an Android bundle's server under emulation; instructions are counted in that file.

    Raises
    ------
    PconvgenError: there is no emulator, or no compiler for its plugin.
    """
    emulate = [toolchain.emulator(), "-cpu", "max", "-plugin", f"{toolchain.counting_plugin()},out={counts}"]
    start = [folder / "lib" / LOADER, "--library-path", folder / "lib", folder / SERVER, "--counts", counts]
    return [*emulate, *map(str, start)]
