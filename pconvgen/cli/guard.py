"""What commands raise becomes an exit code and one line on standard error."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from pconvgen.cli.quiet import quiet
from pconvgen.errors import REPORT, CompilerBugError, PconvgenError, PconvgenWarning

USAGE = 2
INTERRUPTED = 130

# typer has no name of its own for what it raises when options are wrong; this is the same class in all its versions.
_WrongOptions: Any = typer.BadParameter.__base__


class Commands(TyperGroup):
    """The group of all commands. A command returns its exit code, None for success."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> NoReturn:
        """Runs a command and exits: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
        words = sys.argv[1:] if args is None else list(args)
        debug = "--debug" in words
        # Whoever is told to run a command again with --debug appends it.
        words = [*(["--debug"] if debug else []), *(word for word in words if word != "--debug")]
        try:
            # Without a command there is help, and it is wrong usage all the same.
            code = self._code(words, debug, options) if words else self._code(["--help"], debug, options) or USAGE
        except BrokenPipeError:
            code = _quiet()
        sys.exit(code)

    def _code(self, words: list[str], debug: bool, options: dict[str, Any]) -> int:
        try:
            with warnings.catch_warnings(), nullcontext() if debug else quiet():
                if not debug:
                    warnings.simplefilter("ignore")
                    warnings.simplefilter("always", PconvgenWarning)
                    warnings.showwarning = _show  # type: ignore[assignment]
                code = super().main(words, **{**options, "standalone_mode": False}) or 0
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            line, code = _described(error)
            print(line, file=sys.stderr)
        else:
            if code == INTERRUPTED:  # typer catches KeyboardInterrupt and returns this
                print("interrupted", file=sys.stderr)
        return int(code)


def _described(error: BaseException) -> tuple[str, int]:
    """The line for an error, and the exit code."""
    if isinstance(error, PconvgenError):
        return f"error: {error}", error.exit_code
    if isinstance(error, _WrongOptions):
        context = error.ctx
        command = context.command_path if context else "pconvgen"
        return _one_line(f"error: {error.format_message().rstrip('.')}; see {command} --help"), error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"error: {where}the disk is full; free some space", 1
        return f"error: {where}{os.strerror(error.errno)}; check the path and its permissions", 1
    if isinstance(error, MemoryError):
        return "error: this machine has not enough memory for it; close other programs, or use a smaller model", 1
    found = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"error: {CompilerBugError('this is a bug in pconvgen', found=found, remedy=REPORT)}", 1


def _show(message: Warning | str, *_: Any) -> None:
    print(_one_line(f"warning: {message}"), file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quiet() -> int:
    """Nobody reads the output any more: what is still buffered goes nowhere, so that exiting does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return 1
