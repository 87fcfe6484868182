"""`--device adb://`, with a program in adb's place and a phone under emulation."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoker, listen_to_interrupts
from small import SHAPE, small

import pconvgen
from pconvgen.devices import Model, bundle, get_device
from pconvgen.devices.doctor_device import device_checks
from pconvgen.errors import DeviceLostError, PconvgenError, UsageError

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

    def log(self) -> list[str]:
        """The commands since the last time."""
        path = self.state / "log"
        lines = path.read_text().splitlines()
        path.write_text("")
        return lines

    def processes(self) -> list[int]:
        """Those that still run on it."""
        found = [int(path.name) for path in (self.state / "processes").iterdir()]
        return [process for process in found if Path(f"/proc/{process}/cmdline").exists()]

    def unplug(self) -> None:
        """Takes it away, with all that runs there and all that leads there."""
        self.lists()
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        for forward in (self.state / "forwards").iterdir():
            forward.unlink()

    def check_left_as_it_was(self) -> None:
        """Nothing is left but the bundle."""
        for _ in range(100):
            if not self.processes():
                break
            time.sleep(0.1)
        assert self.processes() == []
        assert list((self.state / "forwards").iterdir()) == []
        folder = self.state / "phone" / "pconvgen"
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        pushed = bundle.cached(bundle.flavor("android-arm64"))
        expected = {str(path.relative_to(pushed)) for path in pushed.rglob("*") if path.is_file()}
        assert there - expected == {"digest", "lib/real-loader", "counts"}
        assert [path.name for path in (self.state / "phone").iterdir()] == ["pconvgen"]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    """One that is connected, with adb on PATH."""
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    state = tmp_path / "state"
    for name in ("props", "phone", "forwards", "processes", "fail"):
        (state / name).mkdir(parents=True)
    for name, value in {
        "ro.product.cpu.abi": "arm64-v8a", "ro.product.model": "Pixel 7", "ro.build.version.release": "14"
    }.items():  # fmt: skip
        (state / "props" / name).write_text(value + "\n")
    emulate = bundle.emulated_command(Path("."), "counts")[:5]
    loader = [*emulate, "./lib/real-loader"]
    (state / "loader").write_text(f'#!/bin/sh\nexec {" ".join(loader)} "$@" --counts "$PWD/counts"\n')
    (state / "loader").chmod(0o755)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "adb").write_text(
        f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_adb.py"} {state} "$@"\n'
    )
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    fake = FakePhone(state)
    fake.lists(f"{SERIAL}\tdevice")
    from pconvgen.devices import phone as module

    yield fake
    module._SERVERS.close()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> pconvgen.CompiledModel:
    return pconvgen.compile(pconvgen.load_model(small(), example=(torch.zeros(SHAPE),)), "android-arm64")


@pytest.fixture(scope="module")
def model(compiled: pconvgen.CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return compiled.manifest.model(compiled.export(tmp_path_factory.mktemp("library") / "small.so"))


def bench(library: Path, device: str = "adb://") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pconvgen", "bench", str(library), "--device", device]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )


def test_bench_pushes_once_and_leaves_nothing_behind(phone: FakePhone, model: Model) -> None:
    for device in ("adb://", f"adb://{SERIAL}"):
        running = bench(model.path, device)
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        assert out.startswith("instructions "), "emulation has no times"
        assert f"device {device}" in out
        phone.check_left_as_it_was()
        pushes = [line for line in phone.log() if " push " in line]
        assert len(pushes) == (device == "adb://")
    # An interrupted push is repeated, and so is one of another bundle.
    (phone.state / "phone/pconvgen/digest").write_text("another\n")
    assert get_device("adb://").available() is None
    assert any(" push " in line for line in phone.log())


def test_results_are_right(phone: FakePhone, model: Model, compiled: pconvgen.CompiledModel) -> None:
    inputs = compiled.manifest.random_inputs(0)
    device = get_device("adb://")
    with device.session() as ready:
        for _ in range(2):
            for name, values in compiled.imported.reference(inputs).items():
                np.testing.assert_allclose(ready.run(model, inputs)[name], values, rtol=1e-4, atol=1e-5)
    assert sum("start.sh" in line for line in phone.log()) == 1, "one server for all"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_before_the_end(number: signal.Signals, phone: FakePhone, model: Model, tmp_path: Path) -> None:
    source = "__attribute__((constructor)) static void bad(void) { for (;;) {} }"
    (tmp_path / "hang.c").write_text(source)
    hang = tmp_path / "hang.so"
    subprocess.run(["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-o", hang, tmp_path / "hang.c"], check=True)
    # The manifest is found in the bytes of the file, wherever it is.
    hang.write_bytes(hang.read_bytes() + model.path.read_bytes())
    running = bench(hang)
    for _ in range(300):
        if list((phone.state / "phone").glob("pconvgen/sessions-*/session-*/inputs")):
            break
        time.sleep(0.1)
    else:
        pytest.fail("no session began")
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (running.returncode, err.strip().splitlines()[-1]) == (130, "interrupted")
    else:
        # Nobody is left who could; adb drops it when the phone is unplugged.
        for forward in (phone.state / "forwards").iterdir():
            forward.unlink()
    phone.check_left_as_it_was()


def test_a_phone_that_is_unplugged_and_comes_back(
    phone: FakePhone, model: Model, compiled: pconvgen.CompiledModel
) -> None:
    inputs = compiled.manifest.random_inputs(0)
    device = get_device("adb://")
    device.run(model, inputs)
    phone.unplug()
    with pytest.raises(DeviceLostError, match=f"phone {SERIAL} was lost: no phone is connected; connect one"):
        device.run(model, inputs)
    with pytest.raises(PconvgenError, match="no phone is connected"):
        device.run(model, inputs)
    phone.lists(f"{SERIAL}\tdevice")
    assert device.run(model, inputs)["output"].shape == (1, 10)


def test_a_server_that_the_phone_ends_is_started_again(
    phone: FakePhone, model: Model, compiled: pconvgen.CompiledModel
) -> None:
    inputs = compiled.manifest.random_inputs(0)
    device = get_device("adb://")
    device.run(model, inputs)
    for process in phone.processes():
        os.kill(process, signal.SIGKILL)
    with pytest.raises(DeviceLostError, match="nobody listens there"):
        device.run(model, inputs)
    assert device.run(model, inputs)["output"].shape == (1, 10)


@pytest.mark.parametrize(
    ("lines", "serial", "message"),
    [
        ((), "", "no phone is connected; connect one and switch on USB debugging"),
        ((f"{SERIAL}\tunauthorized",), "", r"R58M12ABCDE: the phone does not trust this machine .*; unlock it"),
        ((f"{SERIAL}\toffline",), "", r"does not answer adb .*adb reconnect"),
        ((f"{SERIAL}\tno permissions (missing udev rules?); see [http://a]",), "", "platform-tools-common"),
        ((f"{SERIAL}\trecovery",), "", "not in use as a device .found recovery, expected device.; start it up"),
        ((f"{SERIAL}\tdevice", "b\tdevice"), "", r"several phones .*; name it: --device adb://R58M12ABCDE"),
        ((f"{SERIAL}\tdevice",), "other", r"other: this phone is not connected .found R58M12ABCDE"),
    ],
)
def test_phones_that_cannot_be_used(
    lines: tuple[str, ...], serial: str, message: str, phone: FakePhone, model: Model,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    phone.lists(*lines)
    code, out, err = invoker(capfd)("bench", model.path, "--device", f"adb://{serial}")
    assert code == (2 if "several" in message else 1)
    assert out == ""
    assert err.startswith("error: ")
    with pytest.raises(PconvgenError, match=message):
        get_device(f"adb://{serial}").run(model, {"image": np.zeros(SHAPE, np.float32)})
    assert phone.processes() == []


def test_adb_is_not_installed(phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_commands_that_fail(command: str, said: str, message: str, phone: FakePhone) -> None:
    phone.fails(command, said)
    with pytest.raises(PconvgenError, match=message):
        get_device("adb://").facts()
    for _ in range(100):
        if not phone.processes():
            break
        time.sleep(0.1)
    assert phone.processes() == []


def test_a_phone_with_another_processor(phone: FakePhone) -> None:
    (phone.state / "props/ro.product.cpu.abi").write_text("armeabi-v7a\n")
    assert "no bundle for this phone (found armeabi-v7a, expected arm64-v8a)" in str(get_device("adb://").available())


@pytest.mark.parametrize("text", ["adb://a/b", "adb://a b", "adb://-d"])
def test_what_is_no_serial(text: str) -> None:
    with pytest.raises(UsageError, match="no address of a phone"):
        get_device(text)


def test_doctor_goes_all_the_steps(phone: FakePhone) -> None:
    found = {check.name: check for check in device_checks(get_device("adb://"))}
    assert list(found)[:5] == ["adb", "phone", "bundle", "server", "device"]
    assert found["adb"].detail == "1.0.41"
    assert found["phone"].detail == f"{SERIAL}: Pixel 7, Android 14, arm64-v8a"
    assert "pushed" in found["bundle"].detail
    assert "right" in found["kernel"].detail
    phone.lists(f"{SERIAL}\tunauthorized")
    *ok, last = device_checks(get_device("adb://"))
    assert [check.status for check in ok] == ["ok"]
    assert (last.name, last.status, "USB debugging" in str(last.remedy)) == ("phone", "failure", True)
