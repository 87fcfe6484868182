"""TVM's RPC: trackers, which hand out devices, and sessions with servers."""

from __future__ import annotations

from threading import Thread
from typing import Any

from tvm import rpc
from tvm.rpc.tracker import PopenTrackerServerState


def start_tracker(host: str, port: int) -> Thread:
    """Starts a tracker; the thread in which it runs does not end by itself. Raises OSError when it cannot listen."""
    return PopenTrackerServerState(host, port, port + 1, silent=True).thread


def tracker_summary(host: str, port: int) -> dict[str, Any]:
    """What a tracker tells: "server_info", a list of the servers, and "queue_info", of those that wait, by key.

    Raises OSError or RuntimeError when none answers.
    """
    return dict(rpc.connect_tracker(host, port).summary())


def session(host: str, port: int, key: str, timeout_s: float) -> Any:
    """A session with a server, which ends it after so many seconds. Raises OSError or RuntimeError."""
    return rpc.connect(host, port, key, session_timeout=timeout_s)


def tracked_session(host: str, port: int, key: str, timeout_s: float) -> Any:
    """As `session`, with the next free server of a key that a tracker has; without any it would wait for ever.

    Raises RuntimeError when no server of that key is registered.
    """
    tracker = rpc.connect_tracker(host, port)
    if not any(server["key"] == f"server:{key}" for server in tracker.summary()["server_info"]):
        raise RuntimeError("no device with that key is registered")
    return tracker.request(key, session_timeout=timeout_s)
