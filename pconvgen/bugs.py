"""Whether an error is a mistake of ours, and how to tell."""

from __future__ import annotations

import traceback

from pconvgen.errors import REPORT, CompilerBugError, last_line

_TVM = ("tvm", "tvm_ffi")
_CPP = (".cc", ".cpp", ".h", ".pxi", ".pyx")


def ours(error: BaseException) -> bool:
    """Whether an error was raised in this package, or in what it called other than TVM."""
    modules = [
        "tvm" if frame.f_code.co_filename.endswith(_CPP) else str(frame.f_globals.get("__name__", ""))
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    packages = [module.partition(".")[0] for module in modules]
    last = max((number for number, name in enumerate(packages) if name == "pconvgen"), default=None)
    return last is not None and not any(name in _TVM for name in packages[last:])


def bug(error: BaseException, *, file: object = None, layer: str | None = None, operator: str = "") -> CompilerBugError:
    """The error to show for one that only a mistake of ours explains."""
    return CompilerBugError(
        "this is a bug in pconvgen" + (f", met by this {operator}" if operator else ""),
        file=file,
        layer=layer,
        found=f"{type(error).__name__}: {last_line(error)}" if str(error) else type(error).__name__,
        remedy=REPORT,
    )
