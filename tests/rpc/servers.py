"""Servers and trackers on this machine, for tests."""

from __future__ import annotations

import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pconvgen.devices.rpc import RpcDevice

START_S = 60


@dataclass
class Server:
    """A running one."""

    process: subprocess.Popen[str]
    port: int
    folder: Path | None

    def device(self, key: str = "me", timeout_s: float = 30) -> RpcDevice:
        """It, as a device."""
        return RpcDevice("127.0.0.1", self.port, key, timeout_s=timeout_s)

    def said(self, text: str, seconds: float = 10) -> str:
        """Waits until it prints that; all that it printed since the last time."""
        assert self.process.stdout is not None
        found, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                line = self.process.stdout.readline()
                found += line
                if text in line or not line:
                    break
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
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], START_S)[0]
        line = process.stdout.readline()
        found = re.search(r"listening on [\d.]+:(\d+)", line)
        assert found, line
        yield Server(process, int(found[1]), folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
