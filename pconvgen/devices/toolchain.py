"""What it takes to run ARM programs here: an emulator, a cross compiler, and TVM's runtime for ARM.

Everything that is made or fetched is kept in the user's cache folder, in a folder of the installed TVM versions, and
appears there under its final name only when it is complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError
from pconvgen.files import user_cache

PACKAGES = ("apache-tvm", "apache-tvm-ffi")
LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_24_aarch64", "manylinux_2_17_aarch64")
FETCH_TIMEOUT_S = 900
COMPILE_TIMEOUT_S = 300
APT_REMEDY = "apt-get install qemu-user g++-aarch64-linux-gnu"

_SOURCES = Path(__file__).parent / "native"
_COMPILER = "aarch64-linux-gnu-g++"
_HOST_FLAGS = ("-std=c++17", "-O2")
_PLUGIN_FLAGS = ("-O2", "-shared", "-fPIC")


def emulator() -> str:
    """Path of qemu's emulator of aarch64 programs; the dynamic one first, because only that loads plugins.

    Raises
    ------
    PconvgenError: there is none.
    """
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not found:
        raise PconvgenError("no emulator for ARM programs", expected="qemu-aarch64", remedy=APT_REMEDY)
    return found


@functools.cache
def emulated_cpus(qemu: str) -> frozenset[str]:
    """Names of the processors that this qemu emulates."""
    # Not `run_child`: qemu exits with 1 after this help.
    printed = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, timeout=30, check=False).stdout
    return frozenset(printed.split())


@functools.cache
def emulator_version(qemu: str) -> str:
    """Such as 7.2.22."""
    words = run_child([qemu, "--version"], "qemu", timeout_s=30).split()
    return words[words.index("version") + 1] if "version" in words else "unknown"


def cross_compiler() -> str:
    """Path of the C++ compiler for aarch64 Linux.

    Raises
    ------
    PconvgenError: there is none.
    """
    found = shutil.which(_COMPILER)
    if not found:
        raise PconvgenError("no C++ compiler for ARM", expected=_COMPILER, remedy=APT_REMEDY)
    return found


@functools.cache
def sysroot() -> Path:
    """The folder whose lib/ has the C library of ARM programs, as the cross compiler knows it.

    Raises
    ------
    PconvgenError: the compiler has no C library.
    """
    loader = "ld-linux-aarch64.so.1"
    printed = run_child([cross_compiler(), f"-print-file-name={loader}"], _COMPILER, timeout_s=30).strip()
    # The compiler prints the bare name back when it does not find the file.
    if printed == loader:
        raise PconvgenError("the ARM compiler has no C library", expected=loader, remedy=APT_REMEDY)
    return Path(os.path.normpath(printed)).parent.parent


def cache_folder() -> Path:
    """Where everything for the installed versions is kept; made on the first call.

    Raises
    ------
    PconvgenError: it cannot be made.
    """
    versions = "-".join(f"{name.removeprefix('apache-')}-{metadata.version(name)}" for name in PACKAGES)
    folder = user_cache() / versions
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PconvgenError(
            "cannot make the cache folder",
            file=folder,
            found=error.strerror or error,
            remedy="set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    return folder


def runtime_is_cached() -> bool:
    """Whether TVM's runtime for ARM is here already."""
    return all((cache_folder() / name).is_file() for name in LIBRARIES)


def pip_selection() -> list[str]:
    """pip's options that choose ARM wheels for this version of Python, whatever machine this is."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    return ["--only-binary=:all:", "--python-version", version, *platforms]


def runtime() -> Path:
    """The folder with TVM's libraries for ARM, of exactly the installed versions; fetched with pip on the first call.

    Raises
    ------
    PconvgenError: pip or the wheels are not to be had.
    """
    folder = cache_folder()
    if runtime_is_cached():
        return folder
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as name:
        pinned = [f"{package}=={metadata.version(package)}" for package in PACKAGES]
        run_child(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                *pip_selection(),
                "--dest",
                name,
                *pinned,
            ],
            "fetching TVM's runtime for ARM",
            timeout_s=FETCH_TIMEOUT_S,
            remedy="connect to a package index once, with pip installed in this environment",
        )
        _extract(sorted(Path(name).glob("*.whl")), Path(name), folder)
    return folder


def _extract(wheels: Sequence[Path], scratch: Path, folder: Path) -> None:
    """Moves the runtime's libraries from the wheels to the folder.

    Raises
    ------
    PconvgenError: a library is in none of the wheels.
    """
    missing = set(LIBRARIES)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = Path(member).name
                if name in missing:
                    os.replace(archive.extract(member, scratch), folder / name)
                    missing.remove(name)
    if missing:
        raise PconvgenError("the ARM wheels lack libraries", found=f"no {', '.join(sorted(missing))}")


def host_program() -> Path:
    """The program that runs a model on ARM, compiled on the first call.

    Raises
    ------
    PconvgenError: what it takes is missing, or it does not compile.
    """
    folder = runtime()
    package = importlib.util.find_spec("tvm_ffi")
    if package is None or not package.submodule_search_locations:
        raise PconvgenError("apache-tvm-ffi has no headers", remedy="pip install --force-reinstall apache-tvm-ffi")
    include = Path(package.submodule_search_locations[0]) / "include"
    # The order of the libraries is that of their dependencies; all must load although no symbol of two is referred to.
    libraries = [f"-l{Path(name).stem.removeprefix('lib')}" for name in reversed(LIBRARIES)]
    return compiled(
        [cross_compiler()],
        "host_main.cc",
        "",
        (*_HOST_FLAGS, f"-I{include}"),
        (f"-L{folder}", "-Wl,--no-as-needed", *libraries, "-Wl,-rpath,$ORIGIN"),
    )


def counting_plugin() -> Path:
    """The emulator's plugin that counts instructions, compiled on the first call.

    Raises
    ------
    PconvgenError: there is no C compiler, or it does not compile.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise PconvgenError("no C compiler for the emulator's plugin", expected="cc", remedy="apt-get install gcc")
    return compiled([compiler], "count_instructions.c", f"-{platform.machine()}.so", _PLUGIN_FLAGS)


def bionic_names() -> Path:
    """A folder in which the names of Android's C library lead to the C library of Linux.

    A model for Android asks for libm.so and libc.so, and for nothing in them that Linux's do not have.
    """
    folder = cache_folder() / "bionic-names"
    folder.mkdir(exist_ok=True)
    for library in ("libm.so", "libc.so"):
        name, actual = folder / library, sysroot() / "lib" / f"{library}.6"
        if not name.exists():
            name.unlink(missing_ok=True)  # it may lead to a compiler that is gone
            with contextlib.suppress(FileExistsError):  # another process was faster
                name.symlink_to(actual)
    return folder


def compiled(
    command: Sequence[str], source_name: str, suffix: str, flags: Sequence[str], libraries: Sequence[str] = ()
) -> Path:
    """The program or library made from a file of `native`; a changed source or library has another name in the cache.

    Raises
    ------
    PconvgenError: it does not compile.
    """
    source = _SOURCES / source_name
    sources = [source, *sorted(_SOURCES.glob("*.h"))] if source.suffix == ".cc" else [source]
    linked = [Path(word) for word in libraries if not word.startswith("-")]
    texts = b"".join(path.read_bytes() for path in (*sources, *linked))
    key = hashlib.sha256(texts + "\0".join([*command, *flags]).encode()).hexdigest()[:12]
    output = cache_folder() / f"{source.stem}-{key}{suffix}"
    if not output.is_file():
        with tempfile.TemporaryDirectory(dir=output.parent, prefix="compile-") as folder:
            scratch = Path(folder) / output.name
            whole = [*command, *flags, str(source), "-o", str(scratch), *libraries]
            run_child(whole, f"compiling {source_name}", timeout_s=COMPILE_TIMEOUT_S, remedy=APT_REMEDY)
            os.replace(scratch, output)
    return output
