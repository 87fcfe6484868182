"""Child processes whose failures are messages: exit codes, signals and time-outs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pconvgen.errors import PconvgenError

STDERR_CHARACTERS = 800


def run_child(
    command: Sequence[str],
    what: str,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    remedy: str | None = None,
) -> str:
    """Runs a program to its end and returns what it printed.

    Raises
    ------
    PconvgenError: it does not start, fails, dies from a signal (which is named) or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=env, cwd=cwd, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PconvgenError(f"{what} did not end", found=f"more than {timeout_s:g} s", remedy=remedy) from error
    except OSError as error:
        raise PconvgenError(f"{what} does not start", found=error, remedy=remedy) from error
    check_exit(what, done.returncode, done.stderr, remedy)
    return done.stdout


def check_exit(what: str, code: int, printed: str, remedy: str | None = None) -> None:
    """Raises PconvgenError when a process has failed or died from a signal (negative), with the end of its output."""
    text = printed.strip()[-STDERR_CHARACTERS:]
    if code < 0:
        raise PconvgenError(f"{what} crashed", found=f"{_signal_name(-code)} {text}".rstrip(), remedy=remedy)
    if code:
        raise PconvgenError(f"{what} failed", found=text or f"exit code {code}", remedy=remedy)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
