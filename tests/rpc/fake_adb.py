"""Stands in for adb: `fake_adb.py STATE ARGUMENTS...`.

STATE is a folder: `devices` is what `adb devices` lists, `phone/` is the phone (see `emulated_phone`), `forwards/` has
a file for each forwarded port, `processes/` one for each process on the phone, `fail/` one for each command that is to
fail, with what it prints.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from emulated_phone import Phone


def stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(1)


def push(state: Path, source: str, place: str) -> None:
    assert source.endswith("/."), "what is in the folder, not the folder"
    shutil.copytree(source, Phone(state / "phone").here(place), dirs_exist_ok=True)
    print(f"{source}: 1 file pushed")


def shell(state: Path, command: str) -> None:
    phone = Phone(state / "phone")
    (state / "processes" / str(os.getpid())).touch()
    os.execve("/bin/sh", ["sh", "-c", phone.here(command)], phone.environment)


def forward(state: Path, *words: str) -> None:
    if words[0] == "--remove":
        (state / "forwards" / words[1].removeprefix("tcp:")).unlink()
        return
    assert words[0] == "tcp:0", "any free port"
    port = words[1].removeprefix("tcp:")  # the phone is this machine, so that nothing has to be forwarded
    (state / "forwards" / port).touch()
    print(port)


def main(state: Path, *words: str) -> None:
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
        if failure.exists():
            stop(failure.read_text())
        {"push": push, "shell": shell, "forward": forward}[command](state, *rest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
