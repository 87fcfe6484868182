"""The side of Android's adb that runs on the phone, as much of it as the adb command asks for, over TCP.

Messages have a header of 24 bytes and a payload. The host connects (CNXN) and is believed or asked to prove itself
(AUTH); it opens streams (OPEN) to services by name, on which both sides write (WRTE), one message until it is
acknowledged (OKAY), and close (CLSE). What the services do is in `adbd_services`.
"""

from __future__ import annotations

import queue
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count

VERSION, CHECKED_VERSION = 0x01000001, 0x01000000
"""From the first on nobody looks at the checksums any more."""
MOST = 1 << 18
"""Bytes of a payload."""
HEADER = struct.Struct("<4s5I")
TOKEN, PUBLIC_KEY = 1, 3
"""Kinds of AUTH: what the host is to sign, and the key that the user is asked about. Signatures (2) are not known."""
Service = Callable[["Stream", str], None]
"""Accepts a stream that was opened with this argument and talks on it; not to accept it is to refuse."""


def packed(command: str, first: int, second: int, payload: bytes = b"") -> bytes:
    """A message."""
    name = command.encode()
    magic = int.from_bytes(name, "little") ^ 0xFFFFFFFF
    return HEADER.pack(name, first, second, len(payload), sum(payload) & 0xFFFFFFFF, magic) + payload


class Stream:
    """One of a connection; reading and writing block.

    Parameters
    ----------
    send: puts a message on the connection.
    most: bytes in one.
    own, other: its number on the phone and on the host.
    """

    def __init__(self, send: Callable[[bytes], None], most: int, own: int, other: int) -> None:
        self._send, self._most, self._own, self._other = send, most, own, other
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.acknowledged = threading.Semaphore(0)
        self.closed = threading.Event()
        self._accepted, self._unread = False, b""

    def accept(self) -> None:
        """Says that the service is there."""
        self._accepted = True
        self.acknowledged.release()
        self._acknowledge()

    def some(self) -> bytes:
        """The next bytes, none at the end."""
        found, self._unread = self._unread, b""
        return found or self._next()

    def exactly(self, size: int) -> bytes:
        """So many bytes. Raises EOFError when the stream ends before."""
        while len(self._unread) < size:
            more = self._next()
            if not more:
                raise EOFError
            self._unread += more
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def _next(self) -> bytes:
        found = self.incoming.get()
        if found:
            self._acknowledge()
        else:
            self.incoming.put(b"")  # it stays at its end
        return found

    def _acknowledge(self) -> None:
        self._send(packed("OKAY", self._own, self._other))

    def write(self, data: bytes) -> None:
        """Writes all. Raises BrokenPipeError when the other side has closed it."""
        for start in range(0, len(data), self._most):
            self.acknowledged.acquire()
            if self.closed.is_set():
                raise BrokenPipeError
            self._send(packed("WRTE", self._own, self._other, data[start : start + self._most]))

    def close(self) -> None:
        """Closes it, if it is open."""
        if not self.closed.is_set():
            self.end()
            with suppress(OSError):
                self._send(packed("CLSE", self._own if self._accepted else 0, self._other))

    def end(self) -> None:
        """Wakes who reads or writes: nothing comes any more."""
        self.closed.set()
        self.incoming.put(b"")
        self.acknowledged.release()


class Adbd:
    """Listens for an adb server on this machine.

    Parameters
    ----------
    services: by name, with ",v2" where that protocol is asked for.
    features: that it claims.
    state: "device" or "recovery", or "unauthorized" (it does not know the host's key, and nobody allows it), or
        "offline" (it takes connections and never answers).
    version: of the protocol.
    """

    def __init__(
        self, services: Mapping[str, Service], features: tuple[str, ...], state: str = "device", version: int = VERSION
    ) -> None:
        self.services, self.features, self.state, self.version = services, features, state, version
        self.asked: list[str] = []
        self._listener: socket.socket | None = None
        self._connections: list[_Connection] = []
        self.port = 0
        self.plug_in()

    @property
    def serial(self) -> str:
        """What adb calls it."""
        return f"127.0.0.1:{self.port}"

    def plug_in(self) -> None:
        """Listens, at the port that it had before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def unplug(self) -> None:
        """Ends all connections, and takes no new ones."""
        assert self._listener is not None
        with suppress(OSError):  # it was unplugged before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.end()

    def allow(self) -> None:
        """The user trusts the host's key."""
        self.state = "device"
        for connection in self._connections:
            connection.welcome()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection = _Connection(self, listener.accept()[0])
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One of an adb server."""

    def __init__(self, phone: Adbd, connected: socket.socket) -> None:
        self._phone, self._socket = phone, connected
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams: dict[int, Stream] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._version, self._most = phone.version, MOST

    def end(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Until the end of the connection."""
        try:
            with self._socket, self._socket.makefile("rb") as read, suppress(OSError):
                while header := read.read(HEADER.size):
                    name, first, second, size, check, magic = HEADER.unpack(header)
                    payload = read.read(size)
                    if magic != int.from_bytes(name, "little") ^ 0xFFFFFFFF or len(payload) != size:
                        return
                    if self._version < VERSION and check != sum(payload):
                        return
                    self._take(name.decode(), first, second, payload)
        finally:
            for stream in list(self._streams.values()):
                stream.end()

    def welcome(self) -> None:
        """Tells what this is."""
        kind = "recovery" if self._phone.state == "recovery" else "device"
        banner = f"{kind}::ro.product.name=test;ro.product.model=Test;features={','.join(self._phone.features)}"
        self._send(packed("CNXN", self._phone.version, MOST, banner.encode()))

    def _send(self, message: bytes) -> None:
        with self._lock:
            self._socket.sendall(message)

    def _take(self, command: str, first: int, second: int, payload: bytes) -> None:
        if command == "CNXN" and self._phone.state != "offline":
            self._version, self._most = min(first, self._phone.version), min(second, MOST)
            if self._phone.state == "unauthorized":
                self._send(packed("AUTH", TOKEN, 0, secrets.token_bytes(20)))
            else:
                self.welcome()
        elif command == "AUTH" and first != PUBLIC_KEY:
            self._send(packed("AUTH", TOKEN, 0, secrets.token_bytes(20)))
        elif command == "OPEN":
            self._open(first, payload.rstrip(b"\0").decode())
        elif second in self._streams:
            stream = self._streams[second]
            if command == "WRTE":
                stream.incoming.put(payload)
            elif command == "OKAY":
                stream.acknowledged.release()
            elif command == "CLSE":
                stream.end()

    def _open(self, other: int, what: str) -> None:
        kind, _, argument = what.partition(":")
        name, *options = kind.split(",")
        service = self._phone.services.get(",".join([name, *(option for option in options if option == "v2")]))
        if service is None:
            self._send(packed("CLSE", 0, other))
            return
        self._phone.asked.append(what)
        own = next(self._numbers)
        stream = self._streams[own] = Stream(self._send, self._most, own, other)

        def talk() -> None:
            with suppress(OSError, EOFError):
                service(stream, argument)
            stream.close()
            self._streams.pop(own, None)

        threading.Thread(target=talk, daemon=True).start()
