"""What TVM's tracker tells: which servers are registered, and how many of them are free."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pconvgen.errors import PconvgenError, UsageError

TIMEOUT_S = 10


@dataclass(frozen=True)
class Servers:
    """Those of one key.

    Attributes
    ----------
    key: under which they serve.
    addresses: of each, "HOST:PORT".
    free: how many are not in use.
    waiting: clients that wait for one.
    """

    key: str
    addresses: tuple[str, ...]
    free: int
    waiting: int


def servers(address: str) -> list[Servers]:
    """Who is registered at a tracker, by key.

    Raises
    ------
    UsageError: this is no address.
    PconvgenError: no tracker answers there.
    """
    host, port = parse_host(address)
    from pconvgen.tvm_compat.rpc import tracker_summary

    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            pass
        summary = tracker_summary(host, port)
    except (OSError, RuntimeError) as error:
        raise PconvgenError(
            "no tracker answers",
            file=address,
            found=str(error),
            remedy="start one: pconvgen rpc tracker",
        ) from error
    addresses: dict[str, list[str]] = {}
    for server in summary["server_info"]:
        addresses.setdefault(server["key"].removeprefix("server:"), []).append(":".join(map(str, server["addr"])))
    found = []
    for key in sorted({*addresses, *summary["queue_info"]}):
        queue = summary["queue_info"].get(key, {"free": 0, "pending": 0})
        if key in addresses or queue["pending"]:
            found.append(Servers(key, tuple(sorted(addresses.get(key, ()))), queue["free"], queue["pending"]))
    return found


def parse_host(text: str) -> tuple[str, int]:
    """ "HOST:PORT" in two parts. Raises UsageError when it is something else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError("no address", found=text, expected="HOST:PORT", remedy="name both")
    return host, int(port)


def check_free(host: str, port: int) -> None:
    """Raises PconvgenError when nothing can listen there."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise PconvgenError(
            "cannot listen", file=f"{host}:{port}", found=error.strerror, remedy="name another --port or --host"
        ) from error
