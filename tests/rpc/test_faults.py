"""What goes wrong between here and a device: nothing is lost, and the message names the cause."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from servers import Server, serving

import pconvgen
from pconvgen.devices import Model, bundle, get_device, served
from pconvgen.devices.rpc import RpcDevice
from pconvgen.errors import DeviceLostError, PconvgenError, UsageError

pytestmark = pytest.mark.host

MAGIC = 0xFF271


@pytest.fixture(scope="module")
def inputs(compiled: pconvgen.CompiledModel) -> dict[str, np.ndarray]:
    return compiled.manifest.random_inputs(0)


def test_results_are_those_of_this_machine(server: Server, model: Model, inputs: dict[str, np.ndarray]) -> None:
    device, local = server.device(), get_device("local")
    assert device.available() is None
    expected = local.run(model, inputs)
    outputs, result = device.measure(model, inputs, seconds=0.05, evict=1 << 20)
    for name, values in expected.items():
        np.testing.assert_array_equal(outputs[name], values)
        np.testing.assert_array_equal(device.run(model, inputs)[name], values)
    assert result.median_ms is not None
    assert len(result.times_ms) >= 10
    assert result.instructions is None
    facts = device.facts()
    assert facts["machine"] == local.facts()["machine"]
    assert facts["cpu"] == local.facts()["cpu"]
    assert (device.unit, facts["emulated"]) == ("seconds", False)
    with device.session() as ready:
        for _ in range(2):
            np.testing.assert_array_equal(ready.run(model, inputs)["output"], expected["output"])
    assert server.leftovers() == []


def test_addresses() -> None:
    device = get_device("rpc+tracker://farm.example:9190/pixel")
    assert (device.host, device.port, device.key, device.tracker) == ("farm.example", 9190, "pixel", True)  # type: ignore[attr-defined]
    assert device.name == "rpc+tracker://farm.example:9190/pixel"
    for text in ("rpc://here/me", "rpc://here:0/me", "rpc://here:99999/me", "rpc://here:9090", "adc://here:9090/me"):
        with pytest.raises(UsageError, match="no address of a device"):
            get_device(text)


def test_the_wrong_key(server: Server) -> None:
    assert "has another key" in str(server.device("you").available())
    assert server.device().available() is None


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "nobody listens there" in str(get_device(f"rpc://127.0.0.1:{port}/me").available())


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "WAIT_S", 2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        device = RpcDevice("127.0.0.1", listener.getsockname()[1], "me", timeout_s=1)
        assert "somebody else is using the device, or its server hangs" in str(device.available())


def test_a_forwarded_port_with_nobody_behind_it() -> None:
    with socket.socket() as listener:  # adb takes a connection and closes it when the phone's port is closed
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(2)], daemon=True).start()
        device = RpcDevice("127.0.0.1", listener.getsockname()[1], "me")
        with pytest.raises(DeviceLostError, match="the connection was lost"):
            device.facts()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("abort();", r"running the model failed \(found the session crashed: signal 6"),
        ("*(volatile int *)8 = 1;", "the session crashed: signal 11"),
        ("for (;;) {}", r"running the model did not end \(found the session did not end within 2 s"),
        ("kill(getpid(), SIGKILL);", "the session crashed: signal 9"),
    ],
)
def test_bad_kernels_end_their_session_only(
    body: str, message: str, server: Server, bad: Callable[[str], Model], model: Model, inputs: dict[str, np.ndarray]
) -> None:
    with pytest.raises(PconvgenError, match=message):
        server.device(timeout_s=2).run(bad(body), {})
    assert server.device().run(model, inputs)["output"].shape == (1, 10)
    assert (server.leftovers(), server.children()) == ([], [])


def test_a_device_that_is_out_of_memory(
    server: Server, model: Model, inputs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def enormous(path: Path, _: object) -> None:
        float32, rank, elements = struct.pack("<BBH", 2, 32, 1), 1, 1 << 40
        path.write_bytes(struct.pack("<I", 1) + float32 + struct.pack("<Iq", rank, elements))

    with monkeypatch.context() as patch:
        patch.setattr(served, "write_tensors", enormous)
        with pytest.raises(PconvgenError, match="the device is out of memory"):
            server.device().run(model, inputs)
    assert server.device().run(model, inputs)["output"].shape == (1, 10)


def test_a_server_that_is_killed(host_bundle: Path, tmp_path: Path, bad: Callable[[str], Model]) -> None:
    with serving([host_bundle / bundle.START], tmp_path / "sessions") as running:
        device = running.device()
        killer = threading.Timer(5, lambda: os.kill(running.process.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(PconvgenError, match=r"running the model failed \(found the connection was lost"):
            device.run(bad("sleep(20);"), {})
        assert "nobody listens there" in str(device.available())
    with serving([host_bundle / bundle.START], tmp_path / "sessions") as running:
        assert running.leftovers() == [], "what the killed one left behind"


def test_a_connection_that_is_cut_in_an_upload(server: Server, model: Model, inputs: dict[str, np.ndarray]) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(struct.pack("<ii", MAGIC, 9) + b"client:me")
        assert struct.unpack("<i", connection.recv(4)) == (MAGIC,)
        connection.sendall(struct.pack("<Q", 1 << 30) + b"half of it")
    assert server.device().run(model, inputs)["output"].shape == (1, 10)
    assert (server.leftovers(), server.children()) == ([], [])


def test_a_message_of_impossible_size(server: Server, model: Model, inputs: dict[str, np.ndarray]) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(struct.pack("<ii", MAGIC, 9) + b"client:me")
        connection.sendall(struct.pack("<Q", 1 << 62) + b"x" * 4096)
    assert server.device().run(model, inputs)["output"].shape == (1, 10)


def test_two_clients_at_once(server: Server, model: Model, inputs: dict[str, np.ndarray]) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: server.device().measure(model, inputs, seconds=0.2), range(2)))
    np.testing.assert_array_equal(found[0][0]["output"], found[1][0]["output"])


def test_clients_that_say_nothing_do_not_keep_others_out(server: Server) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    started = time.monotonic()
    assert server.device().available() is None
    assert time.monotonic() - started < 5
    for connection in silent:
        connection.close()


def test_a_library_of_another_processor(server: Server, tmp_path: Path, model: Model) -> None:
    from small import SHAPE

    other = tmp_path / "arm.so"
    data = bytearray(model.path.read_bytes())
    data[18:20] = struct.pack("<H", 40 if data[18] != 40 else 62)
    other.write_bytes(data)
    with pytest.raises(PconvgenError, match="the library has code for another processor"):
        server.device().run(dataclasses.replace(model, path=other), {"image": np.zeros(SHAPE, np.float32)})


def test_a_library_of_another_tvm(server: Server, model: Model, inputs: dict[str, np.ndarray]) -> None:
    assert model.runtime is not None
    with pytest.raises(PconvgenError, match=r"another TVM than the device's .found apache-tvm 0\.1"):
        server.device().run(dataclasses.replace(model, runtime="apache-tvm 0.1"), inputs)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".."])
def test_nothing_outside_of_its_folder_is_touched(server: Server, name: str) -> None:
    from tvm import rpc as tvm_rpc

    session = tvm_rpc.connect("127.0.0.1", server.port, "me")
    with pytest.raises(Exception, match="not the name of a file"):
        session.upload(bytearray(b"x"), name)
    with pytest.raises(Exception, match="not the name of a file"):
        session.get_function("ffi.ModuleLoadFromFile")(name)
    with pytest.raises(Exception, match="not the name of a file"):
        session.download(name)


def test_200_sessions_leave_nothing_behind(server: Server) -> None:
    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def handles() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    with server.device().session() as device:
        for _ in range(20):
            assert device.available() is None
        before = resident(), handles()
        for _ in range(180):
            assert device.available() is None
    time.sleep(0.3)
    assert (server.leftovers(), server.children()) == ([], [])
    assert handles() <= before[1]
    assert resident() - before[0] < 1024, "KiB"
