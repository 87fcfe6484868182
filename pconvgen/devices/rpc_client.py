"""The worker's side of a device over TVM's RPC: connects, uploads, runs, fetches. See `pconvgen.devices.served`.

It is a process of its own because a call over RPC has no time-out: a server that hangs would hang its client. What it
is doing stands in stage.txt in the folder of the request, so that who ends it can tell.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

CONNECT_S = 10
"""For the server's machine to take a connection."""


def answer(folder: Path, request: dict[str, Any]) -> None:
    """Has the server answer a request; what it tells goes to told.json, a model's outputs to "outputs"."""
    where = request["rpc"]
    address = f"{where['host']}:{where['port']}"

    def stage(text: str) -> None:
        (folder / "stage.txt").write_text(text)

    stage(f"connecting to {address}")
    with socket.create_connection((where["host"], where["port"]), CONNECT_S):
        pass  # that somebody listens is soon known; the RPC's own connection would wait for a minute
    stage(f"waiting for {address} to be free")
    session = _session(where, request["timeout_s"])
    stage("asking the device for its facts")
    told = json.loads(session.get_function("pconvgen.facts")())
    if request["library"] is not None:
        stage("uploading the library")
        session.upload(request["library"], "model.so")
        session.upload(str(folder / "inputs"), "inputs")
        stage("running the model")
        cores = ",".join(map(str, request["cores"] or ()))
        run = session.get_function("pconvgen.run")
        seconds = request["seconds"] or 0.0
        result = run("model.so", "inputs", "outputs", request["threads"], cores, seconds, request["evict"])
        told |= json.loads(result)
        stage("fetching the outputs")
        (folder / "outputs").write_bytes(session.download("outputs"))
        if seconds and told["emulated"]:
            (folder / "counts").write_bytes(session.download("outputs.counts"))
    (folder / "told.json").write_text(json.dumps(told))


def _session(where: dict[str, Any], timeout_s: float) -> Any:
    """A session with the server, or with one that a tracker hands out; it ends it after so many seconds."""
    from pconvgen.tvm_compat.rpc import session, tracked_session

    connect = tracked_session if where["tracker"] else session
    return connect(where["host"], where["port"], where["key"], timeout_s)
