"""TVM's runtime for Android's own C library: compiled from TVM's repository with an NDK.

An app needs it, as its process cannot load what TVM publishes. The two libraries are what the runtime's part of TVM's
CMake files makes of the same sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pconvgen.affinity import usable_cores
from pconvgen.devices.bundle import RUNTIME, Flavor, Parts
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError
from pconvgen.targets.linker import ANDROID_API, NDK_TRIPLES, PAGE_BYTES

FLAVOR = Flavor("android-arm64", "aarch64", False, "nowhere: there was no NDK and no phone, see docs/deploy.md")
TRIPLE = NDK_TRIPLES["android-arm64"]
PREBUILT = "toolchains/llvm/prebuilt/*"
STL = "libc++_shared.so"
FILE_TIMEOUT_S = 900
FFI = "3rdparty/tvm-ffi"
SOURCES = {
    "libtvm_ffi.so": (f"{FFI}/src/ffi", f"{FFI}/src/ffi/extra"),
    "libtvm_runtime.so": ("src/runtime", "src/runtime/vm", "src/runtime/memory", "src/runtime/rpc"),
}
"""Folders whose files a library is made of; each may refer to the ones before it."""
NOT_FOR_ANDROID = ("backtrace_win.cc",)
INCLUDES = ("include", "src", "3rdparty/compiler-rt", f"{FFI}/include", f"{FFI}/src", f"{FFI}/3rdparty/dlpack/include")
FLAGS = (
    "-std=c++20", "-O2", "-fPIC", "-w", "-DTVM_FFI_USE_LIBBACKTRACE=0", "-DTVM_FFI_EXPORTS", "-DTVM_RUNTIME_EXPORTS",
    f'-DTVM_VERSION="{metadata.version("apache-tvm")}"',
)  # fmt: skip
LINK_FLAGS = ("-shared", "-s", f"-Wl,-z,max-page-size={PAGE_BYTES}")


@dataclass(frozen=True)
class Ndk:
    """What the runtime is made with.

    Attributes
    ----------
    folder: of the NDK.
    source: of TVM's repository with its submodules, in the version that is installed here.
    """

    folder: Path
    source: Path

    def parts(self, scratch: Path) -> Parts:
        """What a bundle is made of; libraries are compiled in a folder, which takes some minutes.

        Raises
        ------
        PconvgenError: this is no NDK, these are not TVM's sources, or one of them does not compile.
        """
        compiler = [str(self._find("bin/clang++")), f"--target={TRIPLE}{ANDROID_API}"]
        stl = self._find(f"sysroot/usr/lib/{TRIPLE}/{STL}")
        includes = tuple(self.source / name for name in INCLUDES)
        files = {library: self._files(folders) for library, folders in SOURCES.items()}
        made: list[Path] = []
        for library, sources in files.items():
            made.append(_library(compiler, includes, sources, scratch / library, made))
        return Parts(tuple(compiler), tuple(path for path in includes if FFI in str(path)), (*made, stl))

    def _find(self, name: str) -> Path:
        found = sorted(self.folder.glob(f"{PREBUILT}/{name}"))
        if not found:
            remedy = "name the folder of an NDK, r23 or newer: the one that has toolchains/ in it"
            raise PconvgenError("this is no NDK", file=self.folder, expected=f"{PREBUILT}/{name}", remedy=remedy)
        return found[0]

    def _files(self, folders: Sequence[str]) -> list[Path]:
        found: list[Path] = []
        for folder in folders:
            inside = sorted((self.source / folder).glob("*.cc"))
            if not inside:
                version = RUNTIME.split()[1]
                raise PconvgenError(
                    "these are not TVM's sources, or its submodules are missing",
                    file=self.source,
                    expected=f"{folder}/*.cc",
                    remedy=f"git clone --recursive --branch v{version} https://github.com/apache/tvm",
                )
            found += [path for path in inside if path.name not in NOT_FOR_ANDROID]
        return found


def _library(
    compiler: Sequence[str], includes: Sequence[Path], sources: Sequence[Path], output: Path, others: Sequence[Path]
) -> Path:
    """Compiles files, as many at a time as there are cores, and links them with other libraries."""
    folder = output.with_suffix(".objects")
    folder.mkdir()

    def compiled(source: Path) -> str:
        # Files of several folders may have one name.
        there = folder / f"{source.parent.name}-{source.stem}.o"
        command = [*compiler, *FLAGS, *(f"-I{path}" for path in includes), "-c", str(source), "-o", str(there)]
        run_child(command, f"compiling {source}", timeout_s=FILE_TIMEOUT_S, remedy="check TVM's version and the NDK's")
        return str(there)

    with ThreadPoolExecutor(usable_cores()) as pool:
        objects = list(pool.map(compiled, sources))
    linking = [*compiler, *LINK_FLAGS, f"-Wl,-soname,{output.name}", "-o", str(output), *objects, *map(str, others)]
    run_child(linking, f"linking {output.name}", timeout_s=FILE_TIMEOUT_S)
    return output
