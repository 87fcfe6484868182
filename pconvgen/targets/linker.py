"""Shared libraries from the object files of the compiler, for the host, ARM Linux and Android.

A model's library needs no C library to link: it refers to TVM's runtime, whose symbols the loading program provides,
and to a few functions of libm and libc. For those a stub library is made at link time that has only the system
library's name and the symbols in use. So no sysroot is needed, every linker gives the same dependencies, and no symbol
version ties the library to the C library of the machine that it was linked on.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pconvgen.elf import undefined_symbols
from pconvgen.errors import PconvgenError
from pconvgen.values.target import Platform, Target

TIMEOUT_S = 300

# The oldest Android release (7.0) whose loader is relied on; newer ones load the same file.
ANDROID_API = 24

# Newer phones map memory in pages of 16 KiB, and Android 15 refuses libraries that are aligned to less.
PAGE_BYTES = 16384

# -s drops the local symbols, which name the compiler's modules; without a build-id equal inputs give equal files.
LINK_FLAGS = (
    "-shared",
    "-s",
    "--as-needed",
    "--hash-style=both",
    "--build-id=none",
    *("-z", f"max-page-size={PAGE_BYTES}"),
    *("-z", "text"),
    *("-z", "noexecstack"),
    # GNU ld pads the file to whole pages without it.
    *("-z", "noseparate-code"),
    # Some distributions' compilers bind at load time; TVM's symbols may be provided by a library that is loaded later.
    *("-z", "lazy"),
)

# The program that loads the library provides TVM's runtime, the linker itself the table. 32-bit ARM's unwind tables
# name their routine without referring to it: no relocation of the library needs it.
PROVIDED_PREFIXES = ("TVMFFI", "TVMBackend", "_GLOBAL_OFFSET_TABLE_", "__aeabi_unwind_cpp_pr")

# fmt: off
_MATH = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh", "erf",
    "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot", "ldexp",
    "lgamma", "llround", "log", "log10", "log1p", "log2", "lround", "nearbyint", "nextafter", "pow", "remainder",
    "rint", "round", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc",
)
# fmt: on
LIBM = frozenset(_MATH) | frozenset(f"{name}f" for name in _MATH)
LIBC = frozenset({"memcpy", "memmove", "memset", "memcmp", "madvise"})

SONAMES: dict[Platform, dict[str, str]] = {
    "host": {"libm": "libm.so.6", "libc": "libc.so.6"},
    "linux-arm64": {"libm": "libm.so.6", "libc": "libc.so.6"},
    "android-arm64": {"libm": "libm.so", "libc": "libc.so"},
    "linux-arm32": {"libm": "libm.so.6", "libc": "libc.so.6"},
    "android-arm32": {"libm": "libm.so", "libc": "libc.so"},
}

REMEDIES: dict[Platform, str] = {
    "host": "install gcc or clang, or: pip install ziglang",
    "linux-arm64": "install one: pip install ziglang, or apt-get install g++-aarch64-linux-gnu, or lld",
    "android-arm64": "install one: pip install ziglang, or lld, or point ANDROID_NDK_HOME to an NDK",
    "linux-arm32": "install one: pip install ziglang, or apt-get install g++-arm-linux-gnueabihf, or lld",
    "android-arm32": "install one: pip install ziglang, or lld, or point ANDROID_NDK_HOME to an NDK",
}

NDK = "NDK clang"
NDK_VARIABLES = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")
"""By which the NDK's own tools find it."""
NDK_TRIPLES: dict[Platform, str] = {
    "android-arm64": "aarch64-linux-android",
    "android-arm32": "armv7a-linux-androideabi",
}
LLD_EMULATIONS = {"aarch64": "aarch64linux", "arm64": "aarch64linux", "armv7a": "armelf_linux_eabi"}


@dataclass(frozen=True)
class Linker:
    """A program that links.

    Attributes
    ----------
    name: what to call it in messages.
    command: the program and the arguments that come first.
    how: "driver" is a C compiler that passes options on to its linker, "lld" takes the linker's options themselves.
    """

    name: str
    command: tuple[str, ...]
    how: Literal["driver", "lld"]


def find_linkers(platform: Platform) -> list[Linker]:
    """Every linker for the platform that this machine has, the preferred one first."""
    return list(_candidates(platform))


def find_linker(target: Target) -> Linker:
    """The preferred linker for the target.

    Raises
    ------
    PconvgenError: this machine has none.
    """
    for linker in _candidates(target.platform):
        return linker
    raise PconvgenError(f"no linker for {target.platform}", remedy=REMEDIES[target.platform])


def link(objects: Sequence[str | Path], output: str | Path, target: Target, linker: Linker | None = None) -> None:
    """Links object files to a shared library for the target: aligned for 16 KiB pages, equal for equal inputs.

    Raises
    ------
    PconvgenError: there is no linker, an object needs a symbol that neither TVM's runtime nor the system's C library
    provides, or the linker fails.
    """
    linker = linker or find_linker(target)
    with tempfile.TemporaryDirectory(prefix="pconvgen-link-") as folder:
        stubs = _stubs(objects, Path(folder), target, linker)
        _call(linker, target, [*LINK_FLAGS, "-o", str(output), *map(str, objects), *map(str, stubs)])


def library_linker(target: Target, linker: Linker | None = None) -> Callable[..., None]:
    """A function to pass as `fcompile` to TVM's `export_library`."""

    def fcompile(output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
        if options:
            raise PconvgenError(
                "this linker takes object files only", found=f"options {' '.join(options)}", expected="an LLVM target"
            )
        link(objects, output, target, linker)

    # TVM looks for these: which files it is to write, and what suffix the result has.
    fcompile.object_format = "o"  # type: ignore[attr-defined]
    fcompile.output_format = "so"  # type: ignore[attr-defined]
    return fcompile


def _candidates(platform: Platform) -> Iterator[Linker]:
    if platform == "host":
        yield from _on_path("driver", "cc", "gcc", "clang")
    elif platform == "linux-arm64":
        yield from _on_path("driver", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
    elif platform == "linux-arm32":
        yield from _on_path("driver", "arm-linux-gnueabihf-gcc", "arm-linux-gnueabihf-g++")
    else:
        yield from _ndk(NDK_TRIPLES[platform])
    yield from _on_path("lld", "ld.lld")
    if importlib.util.find_spec("ziglang"):
        yield Linker("zig ld.lld", (sys.executable, "-m", "ziglang", "ld.lld"), "lld")


def _on_path(how: Literal["driver", "lld"], *names: str) -> Iterator[Linker]:
    for name in names:
        if path := shutil.which(name):
            yield Linker(name, (path,), how)


def _ndk(triple: str) -> Iterator[Linker]:
    """The clang of the NDK that the NDK's own environment variables point to."""
    for variable in NDK_VARIABLES:
        folder = os.environ.get(variable)
        if not folder:
            continue
        for clang in sorted(Path(folder).glob("toolchains/llvm/prebuilt/*/bin/clang")):
            yield Linker(NDK, (str(clang), f"--target={triple}{ANDROID_API}"), "driver")
            return


def _stubs(objects: Iterable[str | Path], folder: Path, target: Target, linker: Linker) -> list[Path]:
    """A stub library for each system library that the objects need.

    Raises
    ------
    PconvgenError: a symbol belongs to no library that models may use.
    """
    symbols = {symbol for symbol in undefined_symbols(objects) if not symbol.startswith(PROVIDED_PREFIXES)}
    sonames = SONAMES[target.platform]
    stubs = []
    for library, provided in (("libm", LIBM), ("libc", LIBC)):
        if used := sorted(symbols & provided):
            stubs.append(_stub(used, sonames[library], folder, target, linker))
    if unknown := symbols - LIBM - LIBC:
        raise PconvgenError(
            "the model calls functions that no library on the device has",
            found=", ".join(sorted(unknown)),
            expected="functions of libm, libc or TVM's runtime",
            remedy="compute it with other operators in the model",
        )
    return stubs


def _stub(symbols: Sequence[str], soname: str, folder: Path, target: Target, linker: Linker) -> Path:
    """A library of that name in which the symbols are defined and nothing is behind them."""
    output = folder / soname
    if linker.how == "lld":
        source = folder / f"{soname}.ld"
        source.write_text("".join(f"{symbol} = 0;\n" for symbol in symbols))
    else:
        # GNU ld makes no dynamic symbols from a script alone, but a C compiler has an assembler.
        source = folder / f"{soname}.s"
        source.write_text("".join(f".globl {symbol}\n{symbol}:\n" for symbol in symbols))
    _call(linker, target, ["-shared", "-soname", soname, "-o", str(output), str(source)])
    return output


def _call(linker: Linker, target: Target, flags: Sequence[str]) -> None:
    """Runs the linker.

    Raises
    ------
    PconvgenError: it fails, or takes longer than `TIMEOUT_S`.
    """
    command = [
        *linker.command,
        *(_lld_flags(target) if linker.how == "lld" else ["-nostdlib"]),
        *_spelled(linker, flags),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PconvgenError(f"{linker.name} did not end", found=f"{TIMEOUT_S} s") from error
    except OSError as error:
        raise PconvgenError(f"{linker.name} does not start", found=error) from error
    if done.returncode:
        raise PconvgenError(f"{linker.name} failed for {target.platform}", found=done.stderr.strip()[-1000:])


def _lld_flags(target: Target) -> list[str]:
    """A bare linker is told the processor, because a stub's script does not show it."""
    return ["-m", LLD_EMULATIONS.get(target.triple.split("-")[0], "elf_x86_64")]


def _spelled(linker: Linker, flags: Sequence[str]) -> list[str]:
    """The linker's options as its command takes them: -z text is -Wl,-z,text for a C compiler."""
    if linker.how == "lld":
        return list(flags)
    spelled, rest = [], iter(flags)
    for flag in rest:
        if flag in ("-z", "-soname"):
            spelled.append(f"-Wl,{flag},{next(rest)}")
        elif flag.startswith("--"):
            spelled.append(f"-Wl,{flag}")
        else:
            spelled.append(flag)
    return spelled
