"""What the phone does for adb (see `adbd`): a shell, files, and connections to its ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adbd import Service, Stream
from emulated_phone import Phone

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
"""Kinds of packets in the second protocol of the shell."""
CHUNK = 1 << 16
NO_SUCH_FILE = 2


@dataclass
class Services:
    """Those of a phone."""

    phone: Phone

    def by_name(self) -> dict[str, Service]:
        """By name."""
        return {"shell": self.terminal, "shell,v2": self.shell, "sync": self.sync, "tcp": connect}

    def terminal(self, stream: Stream, command: str) -> None:
        """The shell's first protocol: a terminal, which knows of no exit codes."""
        own, its = os.openpty()
        process = self.phone.start(command, (str(shutil.which("setsid")), "--ctty"), stdin=its, stdout=its, stderr=its)
        os.close(its)
        stream.accept()

        def typed() -> None:
            while data := stream.some():
                os.write(own, data)
            with suppress(ProcessLookupError):  # closing a terminal hangs up on its session
                os.killpg(process.pid, signal.SIGHUP)

        threading.Thread(target=typed, daemon=True).start()
        with suppress(OSError):  # the other side of a terminal is closed
            while data := os.read(own, CHUNK):
                stream.write(data)
        process.wait()
        os.close(own)

    def shell(self, stream: Stream, command: str) -> None:
        """The shell's second protocol: packets for each of a process's streams, and its exit code."""
        process = self.phone.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stream.accept()
        sending = threading.Lock()

        def send(kind: int, data: bytes) -> None:
            with sending:
                stream.write(struct.pack("<BI", kind, len(data)) + data)

        def printed(kind: int, output: int) -> None:
            with suppress(OSError):
                while data := os.read(output, CHUNK):
                    send(kind, data)

        def typed() -> None:
            assert process.stdin is not None
            with suppress(EOFError, OSError), process.stdin:
                while True:
                    kind, size = struct.unpack("<BI", stream.exactly(5))
                    data = stream.exactly(size)
                    if kind == STDIN:
                        os.write(process.stdin.fileno(), data)
                    elif kind == CLOSE_STDIN:
                        return

        assert process.stdout is not None
        assert process.stderr is not None
        outputs = ((STDOUT, process.stdout), (STDERR, process.stderr))
        threads = [threading.Thread(target=printed, args=(kind, pipe.fileno()), daemon=True) for kind, pipe in outputs]
        threading.Thread(target=typed, daemon=True).start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _, pipe in outputs:
            pipe.close()
        code = process.wait()
        send(EXIT, bytes([code if code >= 0 else 128 - code]))

    def sync(self, stream: Stream, _: str) -> None:
        """Files, request by request, until QUIT."""
        stream.accept()
        while True:
            name, size = struct.unpack("<4sI", stream.exactly(8))
            path = self.phone.here(stream.exactly(size).decode())
            if name == b"QUIT":
                return
            try:
                REQUESTS[name.decode()](stream, path)
            except OSError as error:
                message = (error.strerror or "failed").encode()
                stream.write(struct.pack("<4sI", b"FAIL", len(message)) + message)


def _stat(stream: Stream, path: str) -> None:
    with suppress(OSError):
        found = os.lstat(path)
        stream.write(struct.pack("<4s3I", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))
        return
    stream.write(struct.pack("<4s3I", b"STAT", 0, 0, 0))


def _about(found: os.stat_result | None) -> bytes:
    """The fields of the second protocol."""
    if found is None:
        return struct.pack("<I2Q4IQ3q", NO_SUCH_FILE, *(0,) * 10)
    ids = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    return struct.pack("<I2Q4IQ3q", 0, *ids, *times)


def _stat2(name: bytes, look: Callable[[str], os.stat_result]) -> Callable[[Stream, str], None]:
    def answer(stream: Stream, path: str) -> None:
        found = None
        with suppress(OSError):
            found = look(path)
        stream.write(name + _about(found))

    return answer


def _list(stream: Stream, path: str) -> None:
    for entry in os.scandir(path) if os.path.isdir(path) else ():
        found, name = entry.stat(follow_symlinks=False), entry.name.encode()
        fields = (b"DENT", found.st_mode, found.st_size, int(found.st_mtime), len(name))
        stream.write(struct.pack("<4s4I", *fields) + name)
    stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))


def _list2(stream: Stream, path: str) -> None:
    for entry in os.scandir(path) if os.path.isdir(path) else ():
        name = entry.name.encode()
        stream.write(b"DNT2" + _about(entry.stat(follow_symlinks=False)) + struct.pack("<I", len(name)) + name)
    stream.write(b"DONE" + bytes(72))


def _receive(stream: Stream, path: str, mode: int) -> None:
    """Takes a file; what is wrong is told at its end, as the other side does not listen before."""
    wrong: OSError | None = None
    data = []
    while True:
        name, size = struct.unpack("<4sI", stream.exactly(8))
        if name == b"DONE":
            break
        data.append(stream.exactly(size))
    to = Path(path)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(b"".join(data))
        to.chmod(mode & 0o777)
        os.utime(to, (size, size))  # with DONE it is the time
    except OSError as error:
        wrong = error
    if wrong:
        raise wrong
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _send(stream: Stream, path: str) -> None:
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _receive1(stream: Stream, path: str) -> None:
    name, _, mode = path.rpartition(",")
    _receive(stream, name, int(mode))


def _receive2(stream: Stream, path: str) -> None:
    _, mode, flags = struct.unpack("<4s2I", stream.exactly(12))
    assert not flags, "no compression was offered"
    _receive(stream, path, mode)


def _send2(stream: Stream, path: str) -> None:
    _, flags = struct.unpack("<4sI", stream.exactly(8))
    assert not flags, "no compression was offered"
    _send(stream, path)


REQUESTS: dict[str, Callable[[Stream, str], None]] = {
    "STAT": _stat,
    "STA2": _stat2(b"STA2", os.stat),
    "LST2": _stat2(b"LST2", os.lstat),
    "LIST": _list,
    "LIS2": _list2,
    "SEND": _receive1,
    "SND2": _receive2,
    "RECV": _send,
    "RCV2": _send2,
}
"""Of the protocol for files, in its first and its second form."""


def connect(stream: Stream, port: str) -> None:
    """A connection to a port of the phone, which is this machine."""
    with socket.create_connection(("127.0.0.1", int(port))) as there:
        stream.accept()

        def back() -> None:
            with suppress(OSError):
                while data := there.recv(CHUNK):
                    stream.write(data)
            stream.close()

        threading.Thread(target=back, daemon=True).start()
        while data := stream.some():
            there.sendall(data)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)
