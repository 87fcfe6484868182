"""Is everything here that compiling, running and measuring take? One line for each question."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from pconvgen.affinity import usable_cores
from pconvgen.devices import adb, toolchain
from pconvgen.errors import PconvgenError
from pconvgen.targets.clock import measured_ghz
from pconvgen.targets.host import host_target
from pconvgen.targets.linker import NDK, NDK_VARIABLES, REMEDIES, find_linkers
from pconvgen.targets.presets import get_target
from pconvgen.values.target import Platform, Target

Status = Literal["ok", "warning", "failure"]

# Compiling VGG-16 with its weights embedded was measured at 3.8 GB.
MEMORY_GIB = 4.0
REACH_TIMEOUT_S = 20


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes
    ----------
    name: what was looked at.
    status: "warning" where something optional is missing, "failure" where nothing would work.
    detail: what was found.
    remedy: what to do about it, None when all is well.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def checks(target: Target | str | None = None) -> list[Check]:
    """Looks at everything; with a target, a missing linker for that is a failure. Nothing is raised."""
    return [
        *_guarded("python", _python),
        *(check for name in PACKAGES for check in _guarded(name, partial(_package, name))),
        *_guarded("onnxruntime", _onnxruntime),
        *_guarded("LLVM", _llvm),
        *_guarded("host", _host),
        *_guarded("linkers", lambda: _linkers(target)),
        *_guarded("emulator", _emulator),
        *_guarded("ARM compiler", _cross_compiler),
        *_guarded("ARM runtime", _runtime),
        *_guarded("adb", _adb),
        *_guarded("NDK", _ndk),
        *_guarded("cores", _cores),
        *_guarded("memory", _memory),
    ]


def _guarded(name: str, ask: Callable[[], Check | list[Check]]) -> list[Check]:
    """The answers of a question; when it cannot even be asked, that is the answer."""
    try:
        answer = ask()
    except PconvgenError as error:
        return [Check(name, "failure", str(error), error.remedy)]
    except Exception as error:
        return [Check(name, "failure", f"{type(error).__name__}: {' '.join(str(error).split())}")]
    return answer if isinstance(answer, list) else [answer]


def _python() -> Check:
    return Check("python", "ok", platform.python_version())


def _is_any(version: str) -> str | None:
    return None


def _is_tvm(version: str) -> str | None:
    return None if numbers(version)[:2] == (0, 27) else "pip install 'apache-tvm>=0.27.0.post1,<0.28'"


def _is_ffi(version: str) -> str | None:
    # From 0.1.15 on tvm.ir.save_json crashes the process with TVM 0.27, and with it tuning and pickling.
    good = numbers(version)[:3] == (0, 1, 14)
    return None if good else "pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'"


# For each package what to do about a version, None when that is good.
PACKAGES: dict[str, Callable[[str], str | None]] = {
    "apache-tvm": _is_tvm,
    "apache-tvm-ffi": _is_ffi,
    "torch": _is_any,
    "onnx": _is_any,
    "xgboost": _is_any,
}


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 0.1.14.post1 is (0, 1, 14)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _package(name: str) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "failure", "not installed", "pip install pconvgen")
    remedy = PACKAGES[name](version)
    if remedy:
        return Check(name, "failure", f"{version} does not work here", remedy)
    return Check(name, "ok", version)


def _onnxruntime() -> Check:
    try:
        return Check("onnxruntime", "ok", metadata.version("onnxruntime"))
    except metadata.PackageNotFoundError:
        missing = "not installed: ONNX files are compiled, but not verified"
        return Check("onnxruntime", "warning", missing, "pip install 'pconvgen[verify]'")


def _llvm() -> Check:
    from pconvgen.tvm_compat.llvm import back_ends, llvm_version

    version, there = f"LLVM {llvm_version()}", back_ends()
    if missing := [name for name in ("aarch64", "arm") if name not in there]:
        detail = f"{version} without {' and '.join(missing)}"
        return Check("LLVM", "failure", detail, "install TVM from its wheel: pip install apache-tvm")
    return Check("LLVM", "ok", f"{version} with aarch64 and arm")


def _host() -> Check:
    try:
        host = host_target()
    except PconvgenError as error:
        return Check("host", "warning", str(error), error.remedy)
    core = host.core
    return Check(
        "host",
        "ok",
        f"{host.cpu}, kernels for {core.name}, {measured_ghz()} GHz, L1 {core.l1_kib} KiB, L2 {core.l2_kib} KiB",
    )


def _linkers(wanted: Target | str | None) -> list[Check]:
    """One answer for each platform, or for the wanted target's only."""
    if wanted is not None:
        target = get_target(wanted) if isinstance(wanted, str) else wanted
        return [_linker(target.platform, "failure")]
    return [_linker("host", "failure"), _linker("linux-arm64", "warning"), _linker("android-arm64", "warning")]


def _linker(wanted: Platform, when_missing: Status) -> Check:
    name = f"linker for {wanted}"
    found = [linker.name for linker in find_linkers(wanted)]
    if not found:
        return Check(name, when_missing, "none", REMEDIES[wanted])
    return Check(name, "ok", ", ".join(found))


def _emulator() -> Check:
    try:
        qemu = toolchain.emulator()
    except PconvgenError as error:
        return Check("emulator", "warning", error.message, error.remedy)
    return Check("emulator", "ok", f"{Path(qemu).name} {toolchain.emulator_version(qemu)}")


def _cross_compiler() -> Check:
    try:
        compiler = toolchain.cross_compiler()
    except PconvgenError as error:
        return Check("ARM compiler", "warning", error.message, error.remedy)
    return Check("ARM compiler", "ok", Path(compiler).name)


def _runtime() -> Check:
    """Whether TVM's runtime for ARM is here or, when it is not, whether pip could fetch it."""
    if toolchain.runtime_is_cached():
        return Check("ARM runtime", "ok", f"in {toolchain.cache_folder()}")
    command = [sys.executable, "-m", "pip", "index", "versions", "apache-tvm-ffi", *toolchain.pip_selection()]
    try:
        reached = subprocess.run(command, capture_output=True, timeout=REACH_TIMEOUT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        reached = False
    if reached:
        return Check("ARM runtime", "ok", "not here yet; the first run on the emulated device fetches about 100 MB")
    return Check(
        "ARM runtime", "warning", "not here, and pip reaches no package index", "connect once, with pip installed"
    )


def _adb() -> Check:
    try:
        return Check("adb", "ok", f"{adb.version()}, for phones at the USB port")
    except PconvgenError as error:
        return Check("adb", "warning", f"{error.message}; only --device adb:// takes it", error.remedy)


def _ndk() -> Check:
    found = [linker.command[0] for linker in find_linkers("android-arm64") if linker.name == NDK]
    named = [name for name in NDK_VARIABLES if os.environ.get(name)]
    if named and not found:
        return Check(
            "NDK", "warning", f"none where {named[0]} points", "point it to an NDK, or unset it: none is needed"
        )
    return Check("NDK", "ok", found[0] if found else "none, and none is needed")


def _cores() -> Check:
    return Check("cores", "ok", f"{usable_cores()}")


def _memory() -> Check:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if not found:
        return Check("memory", "warning", "unknown", f"large models need {MEMORY_GIB:g} GiB to compile")
    gib = int(found.group(1)) / 2**20
    if gib < MEMORY_GIB:
        return Check("memory", "warning", f"{gib:.1f} GiB free", f"large models need {MEMORY_GIB:g} GiB to compile")
    return Check("memory", "ok", f"{gib:.1f} GiB free")
