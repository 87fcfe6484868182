"""A phone at this machine's USB port, or at adb's network port: `adb://SERIAL`.

The first request pushes what the phone lacks of the bundle, starts its server and forwards a port to it. The server
lives as long as the process that uses it: it ends with its standard input, so that one that is killed leaves nothing
running on the phone.
"""

from __future__ import annotations

import atexit
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from pconvgen.devices import adb, bundle, pushing
from pconvgen.devices.adb import Phone, Shell
from pconvgen.devices.pushing import Lacking
from pconvgen.devices.served import Address, ServedDevice
from pconvgen.errors import DeviceLostError, PconvgenError, UsageError

SCHEME = "adb://"
FLAVOR = "android-arm64"
ABI = "arm64-v8a"
FOLDER = "/data/local/tmp/pconvgen"
"""The only place on a phone where adb may put programs and start them."""
START_S = 30
AWARE_S = 2
"""For adb to notice that a command has ended on the phone."""
PROPERTIES = ("product.model", "build.version.release", "product.cpu.abi")
ENDED_REMEDY = "it is started again; if the phone was short of memory, close other programs there"


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
        return _SERVERS.running(self.serial).address

    def failure(self, doing: str, text: str) -> PconvgenError:
        """See `ServedDevice.failure`; tells a phone that is gone or whose server has ended. It is started next time."""
        error = super().failure(doing, text)
        if not isinstance(error, DeviceLostError):
            return error
        running = _SERVERS.known(self.serial)
        ended = running.shell.ended(AWARE_S) if running else None
        _SERVERS.release(self.serial)
        serial = running.phone.serial if running else self.serial
        try:
            adb.find(self.serial)
        except PconvgenError as gone:
            return DeviceLostError(f"phone {serial} was lost: {gone.message}", found=gone.found, remedy=gone.remedy)
        if ended:
            return DeviceLostError(f"the server on phone {serial} ended", found=ended, remedy=ENDED_REMEDY)
        if not running:
            return error
        # The port of this machine that adb forwards says nothing to anybody.
        here = f"{running.address.host}:{running.address.port}"
        message = error.message.replace(here, f"phone {serial}")
        return DeviceLostError(message, file=error.file, found=error.found, remedy=error.remedy)

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """See `Device.steps`."""

        def phone() -> str:
            found = adb.find(self.serial)
            about = found.shell("; ".join(f"getprop ro.{name}" for name in PROPERTIES)).split("\n")
            model, android, abi = (line.strip() for line in about)
            return f"{found.serial}: {model}, Android {android}, {abi}"

        def pushed() -> str:
            lacked = _SERVERS.running(self.serial).lacked
            return f"{f'pushed {len(lacked.files)} of {len(lacked.wanted)} files to' if lacked else 'is in'} {FOLDER}"

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


@dataclass(frozen=True)
class Serving:
    """A server that runs on a phone.

    Attributes
    ----------
    phone: where.
    address: where it is reached.
    lacked: what had to be pushed, None when the phone had all.
    shell: in which it runs.
    """

    phone: Phone
    address: Address
    lacked: Lacking | None
    shell: Shell


@contextmanager
def serving(phone: Phone) -> Iterator[Serving]:
    """A server on the phone, until the end; what the phone lacks of the bundle is pushed.

    Raises
    ------
    PconvgenError: the phone has another processor, the bundle cannot be made or pushed, or the server does not start.
    """
    folder = bundle.cached(bundle.flavor(FLAVOR))
    wanted = bundle.contents(folder)
    key = secrets.token_hex(8)
    start = f"exec sh {FOLDER}/{bundle.START} --key {key} --folder {FOLDER}/sessions-{key} --until eof"
    with ExitStack() as stack:
        shell = stack.enter_context(Shell(phone, pushing.ask_or(start, FOLDER, wanted)))
        port, lacked = _port(shell), None
        abi = re.search(rf"^{pushing.ABI}(\S*)", shell.printed, re.MULTILINE)
        if abi and abi[1] != ABI:
            raise PconvgenError(
                "no bundle for this phone", file=phone.serial, found=abi[1] or "no processor", expected=ABI,
                remedy="use one with 64-bit ARM",
            )  # fmt: skip
        if abi and port is None and shell.ended(0):
            lacked = Lacking.told(folder, wanted, shell.printed)
            lacked.push(phone, FOLDER)
            shell = stack.enter_context(Shell(phone, f"{lacked.placing(FOLDER)} && {start}"))
            port = _port(shell)
        if port is None:
            raise PconvgenError(
                "the server does not start on the phone",
                file=phone.serial,
                found=shell.printed.strip()[-800:] or shell.ended(0) or f"nothing printed in {START_S} s",
                remedy=f"try it there: adb shell {FOLDER}/{bundle.START} --key me",
            )
        forwarded = phone.adb("forward", "tcp:0", f"tcp:{port}")
        try:
            yield Serving(phone, Address("127.0.0.1", int(forwarded), key), lacked, shell)
        finally:
            with suppress(PconvgenError):  # a phone that is gone has no forwards
                phone.adb("forward", "--remove", f"tcp:{forwarded}")


def _port(shell: Shell) -> int | None:
    """Where the server says that it listens; None when it does not get that far."""
    found = shell.until(r"listening on \S+:(\d+),", START_S)
    return int(found[1]) if found else None


class _Servers:
    """Those that this process has started, by the serial that was asked for; they end with it."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[Serving, ExitStack]] = {}
        self._lock = threading.Lock()

    def running(self, serial: str) -> Serving:
        """The server of a phone, which is started where it does not run."""
        with self._lock:
            if serial not in self._running:
                with ExitStack() as stack:
                    found = stack.enter_context(serving(adb.find(serial)))
                    self._running[serial] = (found, stack.pop_all())
            return self._running[serial][0]

    def known(self, serial: str) -> Serving | None:
        """The server of a phone that was started, whether or not it still runs."""
        with self._lock:
            return self._running[serial][0] if serial in self._running else None

    def release(self, serial: str) -> None:
        """Ends the server of a phone, where there is one."""
        with self._lock:
            if serial in self._running:
                self._running.pop(serial)[1].close()

    def close(self) -> None:
        """Ends all."""
        for serial in list(self._running):
            self.release(serial)


_SERVERS = _Servers()
atexit.register(_SERVERS.close)
