"""Devices on which the server of a bundle runs (`pconvgen.devices.bundle`): phones and boards, over TVM's RPC.

Each request is a session of its own, in which a model is uploaded, run and measured by the server itself, so that
nothing of the network is in the times.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pconvgen.devices.container import read_tensors, write_tensors
from pconvgen.devices.counts import Span, read_spans
from pconvgen.devices.device import BenchResult, Device, Model, check_library, named_outputs, ordered_inputs
from pconvgen.devices.fork_server import ForkServer
from pconvgen.devices.steady import THROTTLED
from pconvgen.devices.units import INSTRUCTIONS, SECONDS
from pconvgen.errors import DeviceLostError, PconvgenError, UsageError

CONDITIONS = ("server", "cooled s", "celsius before", "celsius after", "mhz after")
"""What a server tells of a measurement beside the times."""
WAIT_S = 60
"""For a device that somebody else is using."""
CAUSES = (
    (r"Connection refused|ConnectionRefused", "nobody listens there", "start the server, or forward its port"),
    (r"timed out|No route to host|Name or service", "the machine does not answer", "check the address and the network"),
    (r"cannot find server that matches key", "the server has another key", "name the key that it was started with"),
    (r"is not RPC|magic", "something else listens there", "check the port"),
    (r"no device with that key", "no device with that key is registered", "pconvgen rpc list shows which are"),
    (r"crashed", "the model crashed", "the server goes on; compile the model again for this device"),
    (r"did not end", "it takes too long", "the server goes on; a kernel that hangs is a bug worth reporting"),
    (r"bad_alloc|out of memory|std::length_error", "the device is out of memory", "close other programs there"),
    (
        r"reset by peer|closed|Broken pipe|kShutdown|RecvAll",
        "the connection was lost",
        "check that the server still runs",
    ),
    (
        r"Failed to load dynamic shared library",
        "the library does not load there",
        "compile it for this device's system",
    ),
)
"""What a client's process prints, what that means, and what to do about it."""
LOST = ("the connection was lost", "nobody listens there", "the machine does not answer")
"""Not the model's fault."""


@dataclass(frozen=True)
class Address:
    """Where a server is reached.

    Attributes
    ----------
    host, port: of the server, or of the tracker.
    key: under which it serves.
    tracker: whether the address is a tracker's.
    """

    host: str
    port: int
    key: str
    tracker: bool = False


@dataclass(frozen=True, kw_only=True)
class ServedDevice(Device):
    """A server of TVM's RPC with the functions of `native/session.h`.

    Attributes
    ----------
    timeout_s: after which a session is ended.
    worker: runs the client's side in a session; without it each request is a session of its own.
    told: what the device has told of itself; its sessions share it.
    """

    timeout_s: float = 600
    worker: ForkServer | None = None
    told: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    @abstractmethod
    def kind(self) -> str:
        """What records call it: devices of one kind are compared."""

    @abstractmethod
    def address(self) -> Address:
        """Where it is reached now. Raises PconvgenError when it cannot be."""

    @property
    def unit(self) -> str:
        """Seconds; instructions where the server runs under emulation."""
        return INSTRUCTIONS if self._told["emulated"] else SECONDS

    @contextmanager
    def session(self) -> Iterator[ServedDevice]:
        """With a client's process that has TVM imported; see `Device.session`."""
        worker = ForkServer(self.timeout_s + WAIT_S)
        worker.start()  # it takes its time, in which the device is reached
        try:
            yield replace(self, worker=worker)
        finally:
            worker.close()

    def available(self) -> str | None:
        """Why it does not answer, None when it does."""
        try:
            self._ask(None, {}, {})
        except PconvgenError as error:
            return str(error)
        return None

    @property
    def _told(self) -> dict[str, Any]:
        """What the device tells of itself, asked for once."""
        if not self.told:
            self._ask(None, {}, {})
        return self.told

    def facts(self) -> dict[str, object]:
        """What the device tells of itself."""
        return {"device": self.kind, **self._told}

    def clocks(self) -> dict[int, float]:
        """As the device tells them; see `Device.clocks`."""
        pairs = zip(self._told["cores"], self._told["max mhz"], strict=True)
        return {int(core): float(mhz) for core, mhz in pairs if mhz > 0}

    def run(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name of one inference; see `Device.run`."""
        return self._ask(model, inputs, {"threads": threads, "cores": cores})[1]

    def measure(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
        seconds: float = 0.5,
        evict: int = 0,
    ) -> tuple[dict[str, np.ndarray], BenchResult]:
        """Outputs of one inference and times of repeated ones, or instructions of one; see `Device.measure`."""
        options = {"threads": threads, "cores": cores, "seconds": seconds, "evict": evict}
        told, outputs, span = self._ask(model, inputs, options)
        times = tuple(told.get("times ms", ()))
        return outputs, BenchResult(
            median_ms=statistics.median(times) if times else None,
            min_ms=min(times) if times else None,
            times_ms=times,
            threads=threads,
            cores=tuple(cores or ()),
            device=self.name,
            target=model.target,
            instructions=span.instructions if span else None,
            classes=span.classes if span else {},
            conditions={name: told[name] for name in CONDITIONS if name in told},
            throttled=0 < told.get("mhz after", 0) < THROTTLED * told.get("mhz most", 0),
        )

    def _ask(
        self, model: Model | None, inputs: Mapping[str, np.ndarray], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray], Span | None]:
        """What the device tells, a model's outputs, and what it executes where that is counted."""
        if self.worker is None:
            with self.session() as ready:
                return ready._ask(model, inputs, options)
        with tempfile.TemporaryDirectory(prefix="pconvgen-rpc-") as name:
            folder = Path(name)
            request = {
                "rpc": asdict(self.address()),
                "timeout_s": self.timeout_s,
                "library": None,
                "seconds": None,
                "evict": 0,
                **options,
            }
            if model is not None:
                self._check(model)
                write_tensors(folder / "inputs", ordered_inputs(model, inputs))
                request |= {"library": str(model.path.resolve())}
            (folder / "request.json").write_text(json.dumps(request))
            self._answer(folder)
            told = json.loads((folder / "told.json").read_text())
            if model is None:
                self.told.update(told)
                return told, {}, None
            if told["cpu"] != self._told["cpu"]:
                raise UsageError(
                    "devices with this key differ, and so would their times",
                    file=self.name,
                    found=f"{told['cpu']}, {self._told['cpu']}",
                    remedy="give each kind a key of its own",
                )
            counts = folder / "counts"
            outputs = named_outputs(model, read_tensors(folder / "outputs"))
            return told, outputs, read_spans(counts)[-1] if counts.exists() else None

    def _check(self, model: Model) -> None:
        """Raises PconvgenError when a library is not for this device or its runtime."""
        machine, runtime = str(self._told["machine"]), self._told["runtime"]
        check_library(model, machine, remedy=f"compile for {machine}, which the device is")
        if model.runtime not in (None, runtime):
            raise PconvgenError(
                "the library is for another TVM than the device's",
                file=model.path,
                found=model.runtime,
                expected=runtime,
                remedy="compile it again, or build the device's bundle again with this version",
            )

    def _answer(self, folder: Path) -> None:
        """Has the client's process do what the folder asks for."""
        assert self.worker is not None
        try:
            self.worker.answer(folder, "the client", "")
        except PconvgenError as error:
            stage = folder / "stage.txt"
            doing = stage.read_text() if stage.exists() else "starting"
            raise self.failure(doing, f"{error.message} {error.found or ''}") from error

    def failure(self, doing: str, text: str) -> PconvgenError:
        """The error for what a client's process printed, by what it was doing."""
        last = ("", text.strip().splitlines()[-1], "try again")
        _, found, remedy = next((cause for cause in CAUSES if re.search(cause[0], text)), last)
        late = "did not end" in text
        if late and doing.startswith("waiting"):
            found, remedy = "no answer", "somebody else is using the device, or its server hangs: restart that"
        what = re.search(r"the session (?:crashed|did not end)[^\n]*|not the name of a file[^\n]*", text)
        lost = found in LOST or doing.startswith(("starting", "connecting", "waiting"))
        return (DeviceLostError if lost else PconvgenError)(
            f"{doing} did not end" if late else f"{doing} failed",
            file=self.name,
            found=what[0] if what else found,
            remedy=remedy,
        )
