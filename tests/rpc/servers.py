"""Servers and trackers on this machine, for tests."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from pconvgen.devices.rpc import RpcDevice

START_S = 60


class Printed:
    """What a process prints, line by line. A thread reads it: whether a pipe is readable tells nothing of the lines
    that Python has read ahead."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, text: str, seconds: float) -> str:
        """All lines since the last that was waited for, up to the one with that text, an end of file or a time."""
        found, end = "", time.monotonic() + seconds
        with suppress(Empty):
            while text not in found:
                line = self._lines.get(timeout=max(0, end - time.monotonic()))
                found += line
                if not line:
                    break
        return found


@dataclass
class Server:
    """A running one."""

    process: subprocess.Popen[str]
    printed: Printed
    port: int
    folder: Path | None

    def device(self, key: str = "me", timeout_s: float = 30) -> RpcDevice:
        """It, as a device."""
        return RpcDevice("127.0.0.1", self.port, key, timeout_s=timeout_s)

    def said(self, text: str, seconds: float = 30) -> str:
        """Waits until it prints that; all that it printed since the last time."""
        found = self.printed.until(text, seconds)
        assert text in found, found
        return found

    def leftovers(self) -> list[Path]:
        """Files of sessions."""
        assert self.folder is not None
        return list(self.folder.rglob("*"))

    def children(self) -> list[str]:
        """Its processes, itself excluded."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return path.read_text().split()


@contextmanager
def serving(command: Sequence[str | Path], folder: Path | None, *options: str, key: str = "me") -> Iterator[Server]:
    """A server with that key, until the end; with files in a folder that is known here."""
    where = [] if folder is None else ["--folder", str(folder)]
    arguments = [*map(str, command), "--key", key, *where, *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    printed = Printed(process)
    try:
        line = printed.until("listening on", START_S)
        found = re.search(r"listening on [\d.]+:(\d+)", line)
        assert found, line
        yield Server(process, printed, int(found[1]), folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
