"""A phone at this machine's USB port, or at adb's network port: `adb://SERIAL`.

The first request pushes the bundle, where it is not on the phone already, starts its server and forwards a port to it.
The server lives as long as the process that uses it: it ends with its standard input, so that one that is killed
leaves nothing running on the phone.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from pconvgen.devices import adb, bundle
from pconvgen.devices.adb import Phone
from pconvgen.devices.served import Address, ServedDevice
from pconvgen.errors import DeviceLostError, PconvgenError, UsageError

SCHEME = "adb://"
FLAVOR = "android-arm64"
ABI = "arm64-v8a"
FOLDER = "/data/local/tmp/pconvgen"
"""The only place on a phone where adb may put programs and start them."""
DIGEST = f"{FOLDER}/digest"
PUSH_S, START_S, STOP_S = 300, 30, 10


@dataclass(frozen=True)
class AdbDevice(ServedDevice):
    """A phone that adb reaches.

    Attributes
    ----------
    serial: by which adb names it; empty for the only one.
    """

    serial: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its address."""
        return f"{SCHEME}{self.serial}"

    @property
    def kind(self) -> str:
        """Phones are told apart by their processors only."""
        return "phone"

    def address(self) -> Address:
        """That of its server, which is started where it does not run."""
        return _SERVERS.address(self.serial)

    def failure(self, doing: str, text: str) -> PconvgenError:
        """See `ServedDevice.failure`; a phone that is gone is named, and one that is not is asked again next time."""
        error = super().failure(doing, text)
        if isinstance(error, DeviceLostError):
            phone = _SERVERS.release(self.serial)
            try:
                adb.find(self.serial)
            except PconvgenError as gone:
                return DeviceLostError(
                    f"phone {phone.serial if phone else self.serial} was lost: {gone.message}",
                    found=gone.found,
                    remedy=gone.remedy,
                )
        return error

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """See `Device.steps`."""

        def phone() -> str:
            found = adb.find(self.serial)
            about = [found.shell(f"getprop ro.{name}") for name in ("product.model", "build.version.release")]
            return f"{found.serial}: {about[0]}, Android {about[1]}, {_abi(found)}"

        def pushed() -> str:
            return f"{'pushed to' if install(adb.find(self.serial)) else 'is in'} {FOLDER}"

        def server() -> str:
            found = self.address()
            return f"listens, by way of {found.host}:{found.port}"

        return [("adb", adb.version), ("phone", phone), ("bundle", pushed), ("server", server)]


def parse_serial(text: str) -> AdbDevice:
    """The device with that address.

    Raises
    ------
    UsageError: it is none.
    """
    serial = text.removeprefix(SCHEME)
    if re.search(r"[\s/]", serial) or serial.startswith("-"):
        raise UsageError("no address of a phone", found=text, expected="adb://SERIAL, or adb:// for the only one")
    return AdbDevice(serial)


def install(phone: Phone) -> bool:
    """Sees to it that the bundle is on the phone, and says whether it had to be pushed.

    Raises
    ------
    PconvgenError: the phone has another processor, the bundle cannot be made, or it cannot be pushed.
    """
    abi = _abi(phone)
    if abi != ABI:
        raise PconvgenError(
            "no bundle for this phone", file=phone.serial, found=abi, expected=ABI, remedy="use one with 64-bit ARM"
        )
    folder = bundle.cached(bundle.flavor(FLAVOR))
    digest = bundle.digest(folder)
    if phone.shell(f"cat {DIGEST} 2>/dev/null || true") == digest:
        return False
    phone.shell(f"rm -rf {FOLDER}")
    phone.adb("push", str(folder), FOLDER, timeout_s=PUSH_S, remedy="the bundle takes 12 MB there")
    phone.shell(f"echo {digest} > {DIGEST}")  # last, so that a push that was cut short is repeated
    return True


@contextmanager
def serving(phone: Phone) -> Iterator[Address]:
    """A server on the phone, until the end. Raises PconvgenError when it does not start."""
    install(phone)
    key = secrets.token_hex(8)
    start = f"exec sh {FOLDER}/{bundle.START} --key {key} --folder {FOLDER}/sessions-{key} --until eof"
    # A session of its own: Ctrl-C is for this process, which then ends the server.
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            phone.command("shell", start),
            stdin=subprocess.PIPE, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            port = _port(phone, process, printed.fileno())
            forwarded = phone.adb("forward", "tcp:0", f"tcp:{port}")
            try:
                yield Address("127.0.0.1", int(forwarded), key)
            finally:
                with suppress(PconvgenError):  # a phone that is gone has no forwards
                    phone.adb("forward", "--remove", f"tcp:{forwarded}")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _abi(phone: Phone) -> str:
    return phone.shell("getprop ro.product.cpu.abi")


def _port(phone: Phone, process: subprocess.Popen[bytes], printed: int) -> int:
    """Where the server says that it listens."""
    end = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        text = os.pread(printed, 1 << 16, 0).decode(errors="replace")
        if found := re.search(r"listening on \S+:(\d+),", text):
            return int(found[1])
        if ended or time.monotonic() > end:
            raise PconvgenError(
                "the server does not start on the phone",
                file=phone.serial,
                found=text.strip()[-800:] or ("nothing printed" if ended else f"nothing printed in {START_S} s"),
                remedy=f"try it there: adb shell {FOLDER}/{bundle.START} --key me",
            )
        time.sleep(0.02)


class _Servers:
    """Those that this process has started, by the serial that was asked for; they end with it."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[Phone, Address, ExitStack]] = {}
        self._lock = threading.Lock()

    def address(self, serial: str) -> Address:
        """Where the server of a phone is reached."""
        with self._lock:
            if serial not in self._running:
                with ExitStack() as stack:
                    phone = adb.find(serial)
                    found = stack.enter_context(serving(phone))
                    self._running[serial] = (phone, found, stack.pop_all())
            return self._running[serial][1]

    def release(self, serial: str) -> Phone | None:
        """Ends the server of a phone, where there is one."""
        with self._lock:
            if serial not in self._running:
                return None
            phone, _, stack = self._running.pop(serial)
            stack.close()
            return phone

    def close(self) -> None:
        """Ends all."""
        for serial in list(self._running):
            self.release(serial)


_SERVERS = _Servers()
atexit.register(_SERVERS.close)
