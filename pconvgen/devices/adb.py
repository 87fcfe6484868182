"""Android's adb command: which phones are connected, and what is done with one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass

from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError, UsageError

TIMEOUT_S = 30
"""Of a command; the first one starts adb's own server."""
STOP_S = 3
"""For a command to end after its input has."""
INSTALL = "apt-get install adb, or put the platform-tools of Android's SDK on PATH"
CONNECT = "connect one and switch on USB debugging in its developer options; adb devices lists it then"
STATES = {
    "unauthorized": ("the phone does not trust this machine", "unlock it and allow USB debugging there"),
    "authorizing": ("the phone does not trust this machine yet", "unlock it and allow USB debugging there"),
    "offline": ("the phone does not answer adb", "plug it in again, or run: adb reconnect"),
    "no permissions": (
        "this user may not open the phone's USB device",
        "apt-get install android-sdk-platform-tools-common, and plug it in again",
    ),
}
"""What is wrong in a state that adb tells, and what to do about it."""


def program() -> str:
    """Path of adb.

    Raises
    ------
    PconvgenError: it is not installed.
    """
    found = shutil.which("adb")
    if not found:
        raise PconvgenError("adb is not installed", expected="adb on PATH", remedy=INSTALL)
    return found


def version() -> str:
    """Such as 1.0.41. Raises PconvgenError when adb is not installed or does not run."""
    words = run_child([program(), "version"], "adb", timeout_s=TIMEOUT_S, remedy=INSTALL).split()
    return words[words.index("version") + 1] if "version" in words[:-1] else "unknown"


@dataclass(frozen=True)
class Phone:
    """One that is connected and answers.

    Attributes
    ----------
    serial: by which adb names it.
    """

    serial: str

    def command(self, *words: str) -> list[str]:
        """adb's command for this phone."""
        return [program(), "-s", self.serial, *words]

    def adb(self, *words: str, timeout_s: float = TIMEOUT_S, remedy: str | None = None) -> str:
        """What a command of adb prints. Raises PconvgenError when it fails or does not end."""
        what = f"adb {words[0]} on phone {self.serial}"
        return run_child(self.command(*words), what, timeout_s=timeout_s, remedy=remedy).strip()

    def shell(self, command: str) -> str:
        """What a command in the phone's shell prints. Raises PconvgenError when it fails or does not end."""
        return self.adb("shell", command)


class Shell:
    """A command in a phone's shell that goes on beside this process, until its standard input ends.

    Parameters
    ----------
    phone: whose.
    command: which.
    """

    def __init__(self, phone: Phone, command: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        # A session of its own: Ctrl-C is for this process, which then ends the command.
        self._process = subprocess.Popen(
            phone.command("shell", command),
            stdin=subprocess.PIPE, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    @property
    def printed(self) -> str:
        """What it has printed, errors included."""
        return os.pread(self._output.fileno(), 1 << 16, 0).decode(errors="replace").replace("\r", "")

    def until(self, pattern: str, seconds: float) -> re.Match[str] | None:
        """Where it prints that; None when it ends before, or when the time is over."""
        end = time.monotonic() + seconds
        while True:
            over = self._process.poll() is not None or time.monotonic() > end
            if (found := re.search(pattern, self.printed)) or over:
                return found
            time.sleep(0.02)

    def ended(self, seconds: float) -> str | None:
        """How it did, as far as adb tells; None when it still runs after so long."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        with suppress(ValueError):
            return signal.Signals(code - 128 if code > 128 else -code).name
        return f"exit code {code}"


def connected() -> dict[str, str]:
    """The state of each phone that adb knows of, by serial; "device" is one that works. Raises as `version` does."""
    printed = run_child([program(), "devices"], "adb devices", timeout_s=TIMEOUT_S, remedy="run: adb kill-server")
    lines = [line.split(None, 1) for line in printed.partition("List of devices attached")[2].splitlines()]
    return {words[0]: words[1].strip() for words in lines if len(words) == 2}


def find(serial: str) -> Phone:
    """The phone with that serial, or the only one where it is empty.

    Raises
    ------
    UsageError: several are connected, and none is named.
    PconvgenError: adb is not installed, there is no such phone, or it cannot be used.
    """
    phones = connected()
    if not phones:
        raise PconvgenError("no phone is connected", file=f"adb://{serial}", remedy=CONNECT)
    if not serial and len(phones) > 1:
        raise UsageError(
            "several phones are connected",
            found=", ".join(phones),
            expected="one of them",
            remedy=f"name it: --device adb://{next(iter(phones))}",
        )
    chosen = serial or next(iter(phones))
    if chosen not in phones:
        raise PconvgenError("this phone is not connected", file=chosen, found=", ".join(phones), remedy=CONNECT)
    state = phones[chosen]
    if state != "device":
        known = next((found for name, found in STATES.items() if state.startswith(name)), None)
        message, remedy = known or ("the phone is not in use as a device", "start it up as usual")
        raise PconvgenError(message, file=chosen, found=state, expected="device", remedy=remedy)
    return Phone(chosen)
