"""Running commands of the command line inside the test process, where TVM is imported only once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from pconvgen import cli

Invoke = Callable[..., tuple[int, str, str]]
"""Runs a command with its arguments: exit code, standard output, standard error."""


def listen_to_interrupts() -> None:
    """For a process that is started: a shell that runs the tests in the background would have it ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def invoker(capfd: pytest.CaptureFixture[str]) -> Invoke:
    """A function that runs commands and takes what they print, libraries in C++ included."""

    def call(*args: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(arg) for arg in args])
        printed = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, printed.out, printed.err

    return call
