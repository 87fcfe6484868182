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
    if done.returncode < 0:
        found = f"{_signal_name(-done.returncode)} {done.stderr.strip()[-STDERR_CHARACTERS:]}".rstrip()
        raise PconvgenError(f"{what} crashed", found=found, remedy=remedy)
    if done.returncode:
        found = done.stderr.strip()[-STDERR_CHARACTERS:] or f"exit code {done.returncode}"
        raise PconvgenError(f"{what} failed", found=found, remedy=remedy)
    return done.stdout


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
