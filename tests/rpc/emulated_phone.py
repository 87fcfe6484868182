"""A phone under emulation: a folder of this machine, which stands for /data/local/tmp, and processes of this machine.

Its shell has the few programs that are used there, and no others. The programs that are pushed are for ARM: their
loader is started under emulation.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pconvgen.devices import bundle

TMP = "/data/local/tmp"
LOADER = f"lib/{bundle.LOADER}"
PROGRAMS = ("cat", "cmp", "cp", "gzip", "mv", "rm", "tar")

PIXEL = {"ro.product.cpu.abi": "arm64-v8a", "ro.product.model": "Pixel 7", "ro.build.version.release": "14"}
"""What getprop tells there."""


class Phone:
    """Its files and processes.

    Parameters
    ----------
    folder: for it; one that is there already is used as it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.tmp, self.programs = folder, folder / "tmp", folder / "bin"
        self.started: list[subprocess.Popen[bytes]] = []

    def make(self, properties: Mapping[str, str], lacks: tuple[str, ...] = ()) -> Phone:
        """Makes its folder, with what getprop tells, and without some programs."""
        for made in (self.tmp, self.programs):
            made.mkdir(parents=True)
        for name in PROGRAMS:
            if name not in lacks:
                (self.programs / name).symlink_to(str(shutil.which(name)))
        known = "".join(f'{name}) echo "{text}";; ' for name, text in properties.items())
        self._program("getprop", f'case "$1" in {known}*) echo;; esac')
        emulate = " ".join(bundle.emulated_command(Path("."), "counts")[:5])
        emulated, loader = self.programs / "emulated-loader", f"{self.tmp}/pconvgen/{LOADER}"
        self._program(emulated.name, f'exec {emulate} ./lib/real-loader "$@" --counts "$PWD/counts"')
        # Whoever starts a script starts a program for ARM with it.
        self._program("sh", f"""if [ -x {loader} ] && ! cmp -s {loader} {emulated}; then
  mv {loader} {self.tmp}/pconvgen/lib/real-loader && cp {emulated} {loader}
fi
exec /bin/sh "$@" """)  # fmt: skip
        return self

    def here(self, text: str) -> str:
        """A path or a command of the phone's, as it is on this machine."""
        return text.replace(TMP, str(self.tmp))

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes."""
        return {"PATH": str(self.programs)}

    def start(self, command: str, before: tuple[str, ...] = (), **streams: int) -> subprocess.Popen[bytes]:
        """Starts a shell with a command, in a group of its own; what comes before the shell makes one itself."""
        process = subprocess.Popen(
            [*before, "/bin/sh", "-c", self.here(command)],
            env=self.environment, cwd="/", start_new_session=not before, **streams,  # type: ignore[call-overload]
        )  # fmt: skip
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        """Those that it has started and that run still, their groups included."""
        return [process.pid for process in self.started if process.poll() is None or _alive(process.pid)]

    def kill(self) -> None:
        """Ends all of them, as a phone does that is short of memory."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)

    def _program(self, name: str, lines: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)


def _alive(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False
