"""`--device adb://` with a script in adb's place, for what the real one cannot be made to do (see test_real_adb)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulated_phone import PIXEL, Phone

from pconvgen.devices import get_device, phone
from pconvgen.errors import PconvgenError, UsageError

pytestmark = pytest.mark.cross

SERIAL = "R58M12ABCDE"


@dataclass
class FakePhone:
    """A phone, and what fake_adb.py knows of it."""

    state: Path

    def lists(self, *lines: str) -> None:
        """What `adb devices` prints."""
        (self.state / "devices").write_text("".join(f"{line}\n" for line in lines))

    def fails(self, command: str, message: str) -> None:
        """Has a command of adb fail from now on."""
        (self.state / "fail" / command).write_text(message)

    def processes(self) -> list[int]:
        """Those that still run on it."""
        found = [int(path.name) for path in (self.state / "processes").iterdir()]
        return [process for process in found if Path(f"/proc/{process}/cmdline").exists()]

    def forwards(self) -> list[Path]:
        """Its ports that are forwarded."""
        return list((self.state / "forwards").iterdir())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    """One that is connected, with adb on PATH."""
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    state = tmp_path / "state"
    for name in ("forwards", "processes", "fail"):
        (state / name).mkdir(parents=True)
    Phone(state / "phone").make(PIXEL)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "adb").write_text(
        f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_adb.py"} {state} "$@"\n'
    )
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = FakePhone(state)
    found.lists(f"{SERIAL}\tdevice")
    yield found
    phone._SERVERS.close()


def test_the_script_stands_in_for_adb(fake: FakePhone) -> None:
    assert get_device("adb://").available() is None
    assert len(fake.forwards()) == 1
    phone._SERVERS.close()
    assert fake.processes() == []
    assert fake.forwards() == []


def test_a_phone_that_this_user_may_not_open(fake: FakePhone) -> None:
    fake.lists(f"{SERIAL}\tno permissions (missing udev rules?); see [http://a]")
    with pytest.raises(PconvgenError, match="platform-tools-common"):
        get_device("adb://").facts()
    assert fake.processes() == []


def test_adb_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name == "adb" else which(name))
    assert "adb is not installed (expected adb on PATH); apt-get install adb" in str(get_device("adb://").available())


@pytest.mark.parametrize(
    ("command", "said", "message"),
    [
        ("push", "adb: error: No space left on device", r"adb push on phone \S+ failed .*No space.*takes 12 MB"),
        ("shell", "sh: permission denied", r"the server does not start on the phone .*permission denied.*try it there"),
        ("forward", "error: cannot bind", r"adb forward on phone \S+ failed .*cannot bind"),
    ],
)
def test_commands_that_fail(command: str, said: str, message: str, fake: FakePhone) -> None:
    fake.fails(command, said)
    with pytest.raises(PconvgenError, match=message):
        get_device("adb://").facts()
    for _ in range(100):
        if not fake.processes():
            break
        time.sleep(0.1)
    assert fake.processes() == []


@pytest.mark.parametrize("text", ["adb://a/b", "adb://a b", "adb://-d"])
def test_what_is_no_serial(text: str) -> None:
    with pytest.raises(UsageError, match="no address of a phone"):
        get_device(text)
