"""`--device adb://` with the real adb command, an adbd of ours, and the bundle under emulation behind it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from adbd import CHECKED_VERSION, VERSION, Adbd
from adbd_services import Services
from commands import invoker, listen_to_interrupts
from emulated_phone import PIXEL, Phone
from small import SHAPE, small
from test_farm import TARGET, two_layers
from test_tracker import free_port

import pconvgen
from pconvgen.devices import Model, bundle, get_device, phone
from pconvgen.devices.phone import AdbDevice
from pconvgen.errors import DeviceLostError, PconvgenError
from pconvgen.records.store import read_records
from pconvgen.targets.presets import get_target
from pconvgen.tuning.device_check import device_checks
from pconvgen.tuning.session import tune
from pconvgen.tuning.tuner import TuningBudget
from tests.networks import TOLERANCE

pytestmark = pytest.mark.cross

FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "sendrecv_v2")
"""Of phones of today; very old ones have none."""
REQUESTS = ("shell", "shell,v2", "sync")


def adb(*words: str, code: int = 0) -> str:
    """What a command of adb prints."""
    done = subprocess.run(["adb", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@dataclass
class Connected:
    """A phone, and the adbd on it."""

    phone: Phone
    adbd: Adbd

    @property
    def serial(self) -> str:
        """What adb calls it."""
        return self.adbd.serial

    @property
    def device(self) -> AdbDevice:
        """It, by its serial."""
        found = get_device(f"adb://{self.serial}")
        assert isinstance(found, AdbDevice)
        return found

    def asked(self) -> list[str]:
        """What was asked for since the last time, connections to ports excluded."""
        found, self.adbd.asked = self.adbd.asked, []
        return [name for what in found if (name := what.partition(":")[0].partition(",")[0]) in REQUESTS]

    def unplug(self) -> None:
        """Takes it away, with all that runs there."""
        self.adbd.unplug()
        self.phone.kill()
        adb("disconnect", self.serial)  # it would try to connect again for a while, as it does not by USB

    def check_left_as_it_was(self) -> None:
        """Nothing is left but the bundle."""
        wait_until(lambda: not self.phone.processes())
        assert self.serial not in adb("forward", "--list")
        folder = self.phone.tmp / "pconvgen"
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        expected = set(bundle.contents(bundle.cached(bundle.flavor("android-arm64"))))
        assert there - expected <= {"contents", "lib/real-loader", "counts"}
        assert expected <= there
        assert [path.name for path in self.phone.tmp.iterdir()] == ["pconvgen"]


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Fails when it is not so after so long."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


Plug = Callable[..., Connected]
"""Connects a new phone: adbd's arguments, and `lacks` for programs that its shell does not have."""


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The real adb, with a server at a port of its own, which leaves the user's alone."""
    if not shutil.which("adb"):
        pytest.skip("adb is not installed: apt-get install adb, or make system as root")
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
        patch.setenv("HOME", str(home))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
            patch.delenv(name, raising=False)
        for name in ("ADB_USB", "ADB_EMU", "ADB_MDNS"):  # it looks for no phones by itself
            patch.setenv(name, "0")
        adb("start-server")
        yield
        adb("kill-server")


@pytest.fixture
def plug(adb_server: None, tmp_path: Path) -> Iterator[Plug]:
    """Phones that are connected until the test's end."""
    with ExitStack() as stack:
        count = iter(range(9))

        def connect(
            *, state: str = "device", version: int = VERSION, features: tuple[str, ...] = FEATURES,
            properties: dict[str, str] = PIXEL, lacks: tuple[str, ...] = (),
        ) -> Connected:  # fmt: skip
            made = Phone(tmp_path / f"phone{next(count)}").make(properties, lacks)
            stack.callback(made.kill)
            found = Connected(made, Adbd(Services(made).by_name(), features, state, version))
            stack.callback(found.adbd.unplug)
            command = ["adb", "connect", found.serial]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(process.kill)  # it waits for one that is offline
            stack.callback(adb, "disconnect", found.serial)
            wait_until(lambda: f"{found.serial}\t{state}" in adb("devices"))
            return found

        yield connect
        phone._SERVERS.close()


@pytest.fixture(scope="module")
def compiled() -> pconvgen.CompiledModel:
    return pconvgen.compile(pconvgen.load_model(small(), example=(torch.zeros(SHAPE),)), TARGET)


@pytest.fixture(scope="module")
def model(compiled: pconvgen.CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return compiled.manifest.model(compiled.export(tmp_path_factory.mktemp("library") / "small.so"))


@pytest.fixture
def hang(model: Model, tmp_path: Path) -> Path:
    """A library that does not end."""
    source = "__attribute__((constructor)) static void bad(void) { for (;;) {} }"
    (tmp_path / "hang.c").write_text(source)
    made = tmp_path / "hang.so"
    subprocess.run(["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-o", made, tmp_path / "hang.c"], check=True)
    # The manifest is found in the bytes of the file, wherever it is.
    made.write_bytes(made.read_bytes() + model.path.read_bytes())
    return made


def bench(library: Path, device: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pconvgen", "bench", str(library), "--device", device]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )


def check_right(device: AdbDevice, model: Model, compiled: pconvgen.CompiledModel) -> None:
    """Runs it."""
    inputs = compiled.manifest.random_inputs(0)
    outputs = device.run(model, inputs)
    for name, values in compiled.imported.reference(inputs).items():
        assert abs(outputs[name] - values).max() <= TOLERANCE * abs(values).max()


@pytest.mark.parametrize("features", [FEATURES, ()], ids=["today", "first"])
def test_files_go_there_and_back(plug: Plug, tmp_path: Path, features: tuple[str, ...]) -> None:
    connected = plug(features=features)
    (tmp_path / "files/deep").mkdir(parents=True)
    (tmp_path / "files/large").write_bytes(os.urandom(1 << 20))
    (tmp_path / "files/deep/small").write_text("small\n")
    adb("-s", connected.serial, "push", f"{tmp_path}/files/.", "/data/local/tmp/files")
    adb("-s", connected.serial, "pull", "/data/local/tmp/files", str(tmp_path / "back"))
    for name in ("large", "deep/small"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "files" / name).read_bytes()
    # The first protocol of the shell knows of no exit codes.
    adb("-s", connected.serial, "shell", "exit 3", code=3 if features else 0)


def test_bench_pushes_once_and_leaves_nothing_behind(plug: Plug, model: Model) -> None:
    connected = plug()
    for device, asked in (("adb://", ["shell", "sync", "shell"]), (f"adb://{connected.serial}", ["shell"])):
        running = bench(model.path, device)
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        assert out.startswith("instructions "), "emulation has no times"
        assert f"device {device}" in out
        connected.check_left_as_it_was()
        assert (found := connected.asked()) == asked, found


def test_what_changed_is_pushed_and_what_was_cut_short_is_pushed_again(plug: Plug) -> None:
    connected = plug()
    folder = connected.phone.tmp / "pconvgen"

    def pushed() -> str:
        found = dict(connected.device.steps())["bundle"]()
        phone._SERVERS.close()
        return found

    everything = pushed()
    files = len(bundle.contents(bundle.cached(bundle.flavor("android-arm64"))))
    assert everything == f"pushed {files} of {files} files to /data/local/tmp/pconvgen"
    assert pushed() == "is in /data/local/tmp/pconvgen"
    lines = (folder / "contents").read_text().splitlines()
    library = next(index for index, line in enumerate(lines) if line.endswith("lib/libm.so.6"))
    lines[0], lines[library] = "0" * 16, f"{'0' * 16}  lib/libm.so.6"
    (folder / "contents").write_text("\n".join([*lines, f"{'0' * 16}  lib/old.so", ""]))
    (folder / "lib/old.so").touch()
    assert pushed() == f"pushed 1 of {files} files to /data/local/tmp/pconvgen"
    assert not (folder / "lib/old.so").exists()
    (folder / "contents").unlink()
    assert pushed() == everything
    (folder / "lib/libtvm_runtime.so").write_text("damaged")
    assert pushed() == everything, "a server that does not start has the bundle pushed again"


def test_an_old_phone_that_cannot_unpack(plug: Plug, model: Model, compiled: pconvgen.CompiledModel) -> None:
    connected = plug(version=CHECKED_VERSION, features=(), lacks=("gzip",))
    check_right(connected.device, model, compiled)
    phone._SERVERS.close()
    connected.check_left_as_it_was()


def test_one_server_answers_all_requests(plug: Plug, model: Model, compiled: pconvgen.CompiledModel) -> None:
    connected = plug()
    for _ in range(2):
        check_right(connected.device, model, compiled)
    with connected.device.session() as ready:
        assert isinstance(ready, AdbDevice)
        check_right(ready, model, compiled)
    assert connected.asked() == ["shell", "sync", "shell"]


def test_tuning(plug: Plug, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tuned = tune(two_layers(), get_target(TARGET), plug().device, path, TuningBudget(trials=4, seconds=120))
    records = list(read_records(path))
    assert len(records) == tuned.tuner.trials == 4
    assert all(record.failure is None for record in records)
    assert {record.unit for record in records} == {"instructions"}


def test_doctor_goes_all_the_steps(plug: Plug) -> None:
    connected = plug()
    found = {check.name: check for check in device_checks(connected.device)}
    assert list(found)[:5] == ["adb", "phone", "bundle", "server", "device"]
    assert found["adb"].detail.startswith("1.0.")
    assert found["phone"].detail == f"{connected.serial}: Pixel 7, Android 14, arm64-v8a"
    assert "pushed" in found["bundle"].detail
    assert "right" in found["kernel"].detail
    unknown = plug(state="unauthorized")
    *ok, last = device_checks(unknown.device)
    assert [check.status for check in ok] == ["ok"]
    assert (last.name, last.status, "USB debugging" in str(last.remedy)) == ("phone", "failure", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_before_the_end(number: signal.Signals, plug: Plug, hang: Path) -> None:
    connected = plug()
    running = bench(hang, f"adb://{connected.serial}")
    wait_until(lambda: bool(list(connected.phone.tmp.glob("pconvgen/sessions-*/session-*/inputs"))), 60)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (running.returncode, err.strip().splitlines()[-1]) == (130, "interrupted")
    else:
        adb("-s", connected.serial, "forward", "--remove-all")  # nobody is left who could; unplugging does the same
    connected.check_left_as_it_was()


def test_a_phone_that_is_unplugged_and_comes_back(plug: Plug, model: Model, compiled: pconvgen.CompiledModel) -> None:
    connected = plug()
    device, inputs = connected.device, compiled.manifest.random_inputs(0)
    check_right(device, model, compiled)
    connected.unplug()
    with pytest.raises(DeviceLostError, match=f"phone {connected.serial} was lost: no phone is connected; connect one"):
        device.run(model, inputs)
    with pytest.raises(PconvgenError, match="no phone is connected"):
        device.run(model, inputs)
    connected.adbd.plug_in()
    adb("connect", connected.serial)
    wait_until(lambda: f"{connected.serial}\tdevice" in adb("devices"))
    check_right(device, model, compiled)


def test_a_server_that_the_phone_ends_is_told_and_started_again(
    plug: Plug, model: Model, compiled: pconvgen.CompiledModel
) -> None:
    connected = plug()
    device = connected.device
    check_right(device, model, compiled)
    connected.phone.kill()
    ended = rf"the server on phone {connected.serial} ended \(found SIGKILL\); .*short of memory"
    with pytest.raises(DeviceLostError, match=ended):
        device.run(model, compiled.manifest.random_inputs(0))
    check_right(device, model, compiled)
    connected.phone.kill()
    reason = device.available()
    assert reason is not None
    assert f"the server on phone {connected.serial} ended (found SIGKILL)" in reason
    assert device.available() is None


def test_a_server_that_is_killed_in_the_middle_of_a_session(
    plug: Plug, hang: Path, compiled: pconvgen.CompiledModel
) -> None:
    connected = plug()
    failures: list[PconvgenError] = []

    def run() -> None:
        try:
            connected.device.run(compiled.manifest.model(hang), compiled.manifest.random_inputs(0))
        except PconvgenError as error:
            failures.append(error)

    running = threading.Thread(target=run)
    running.start()
    wait_until(lambda: bool(list(connected.phone.tmp.glob("pconvgen/sessions-*/session-*/inputs"))), 60)
    connected.phone.kill()
    running.join(60)
    assert [type(failure) for failure in failures] == [DeviceLostError]
    assert f"the server on phone {connected.serial} ended (found SIGKILL)" in str(failures[0])


def test_an_adb_server_that_is_ended(plug: Plug, model: Model, compiled: pconvgen.CompiledModel) -> None:
    connected = plug()
    device = connected.device
    check_right(device, model, compiled)
    adb("kill-server")
    with pytest.raises(DeviceLostError, match=f"phone {connected.serial} was lost: no phone is connected"):
        device.run(model, compiled.manifest.random_inputs(0))
    adb("connect", connected.serial)
    check_right(device, model, compiled)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("unauthorized", "the phone does not trust this machine .*; unlock it"),
        ("offline", "does not answer adb .*adb reconnect"),
        ("recovery", "not in use as a device .found recovery, expected device.; start it up"),
    ],
)
def test_phones_that_cannot_be_used(
    state: str, message: str, plug: Plug, model: Model, compiled: pconvgen.CompiledModel,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    connected = plug(state=state)
    code, out, err = invoker(capfd)("bench", model.path, "--device", "adb://")
    assert (code, out, err.startswith("error: ")) == (1, "", True)
    with pytest.raises(PconvgenError, match=f"{connected.serial}: .*{message}"):
        connected.device.facts()
    assert connected.asked() == []


def test_a_phone_that_is_told_to_trust_this_machine(plug: Plug) -> None:
    connected = plug(state="unauthorized")
    assert connected.device.available() is not None
    connected.adbd.allow()
    wait_until(lambda: f"{connected.serial}\tdevice" in adb("devices"))
    assert connected.device.available() is None


def test_of_several_phones_one_is_named(plug: Plug, model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no phone is connected; connect one and switch on USB debugging" in str(get_device("adb://").available())
    first, second = plug(), plug()
    code, _, err = invoker(capfd)("bench", model.path, "--device", "adb://")
    assert code == 2
    assert "several phones are connected" in err
    assert f"name it: --device adb://{first.serial}" in err or f"name it: --device adb://{second.serial}" in err
    assert "other: this phone is not connected" in str(get_device("adb://other").available())
    assert second.device.available() is None
    assert first.asked() == []


def test_a_phone_with_another_processor(plug: Plug) -> None:
    connected = plug(properties={**PIXEL, "ro.product.cpu.abi": "armeabi-v7a"})
    reason = str(connected.device.available())
    assert "no bundle for this phone (found armeabi-v7a, expected arm64-v8a)" in reason
    assert connected.asked() == ["shell"]
