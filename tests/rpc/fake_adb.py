"""Stands in for adb: `fake_adb.py STATE ARGUMENTS...`.

STATE is a folder: `devices` is what `adb devices` lists, `props/` has the phone's properties, `phone/` is the phone's
/data/local/tmp, `forwards/` has a file for each forwarded port, `processes/` one for each process on the phone, `fail/`
one for each command that is to fail, with what it prints. `log` gets a line for each command. The phone's processes
run on this machine; its programs are for ARM, so the loader that is pushed is replaced by `loader`, a script that
starts it under emulation.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

TMP = "/data/local/tmp"
LOADER = "lib/ld-linux-aarch64.so.1"


def stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(1)


def push(state: Path, source: str, place: str) -> None:
    to = Path(place.replace(TMP, str(state / "phone")))
    assert not to.exists(), "adb would put it into that folder"
    shutil.copytree(source, to)
    (to / LOADER).rename(to / "lib/real-loader")
    shutil.copy(state / "loader", to / LOADER)
    print(f"{source}: 1 file pushed")


def shell(state: Path, command: str) -> None:
    properties = f'getprop() {{ cat "{state}/props/$1"; }}; '
    (state / "processes" / str(os.getpid())).touch()
    os.execvp("sh", ["sh", "-c", properties + command.replace(TMP, str(state / "phone"))])


def forward(state: Path, *words: str) -> None:
    if words[0] == "--remove":
        (state / "forwards" / words[1].removeprefix("tcp:")).unlink()
        return
    assert words[0] == "tcp:0", "any free port"
    port = words[1].removeprefix("tcp:")  # the phone is this machine, so that nothing has to be forwarded
    (state / "forwards" / port).touch()
    print(port)


def main(state: Path, *words: str) -> None:
    with (state / "log").open("a") as log:
        log.write(" ".join(words) + "\n")
    listed = (state / "devices").read_text()
    if words == ("version",):
        print("Android Debug Bridge version 1.0.41\nVersion 34.0.4-debian")
    elif words == ("devices",):
        print(f"List of devices attached\n{listed}")
    else:
        _, serial, command, *rest = words
        assert words[0] == "-s"
        if f"{serial}\tdevice" not in listed:
            stop(f"adb: device '{serial}' not found")
        failure = state / "fail" / command
        if failure.exists() and not (command == "shell" and "start.sh" not in rest[0]):
            stop(failure.read_text())
        {"push": push, "shell": shell, "forward": forward}[command](state, *rest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
