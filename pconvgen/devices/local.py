"""This machine as a device: models run in a process of their own."""

from __future__ import annotations

import json
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pconvgen.affinity import check_threads, core_numbers, usable_cores
from pconvgen.devices.device import (
    BenchResult,
    Device,
    Model,
    check_library,
    named_outputs,
    ordered_inputs,
)
from pconvgen.devices.fork_server import ForkServer
from pconvgen.devices.process import run_child
from pconvgen.devices.steady import at_start, cool_down
from pconvgen.targets.clock import measured_ghz
from pconvgen.targets.host import CPUINFO


@dataclass(frozen=True)
class LocalDevice(Device):
    """Runs libraries of this machine's processor.

    Attributes
    ----------
    timeout_s: after which a run or a measurement is a failure.
    server: answers in a session; without it each request has a process of its own.
    """

    timeout_s: float = 600
    name: str = "local"
    server: ForkServer | None = None

    @contextmanager
    def session(self) -> Iterator[Device]:
        """With a server, in which TVM is imported once; see `Device.session`."""
        server = ForkServer(self.timeout_s)
        try:
            yield replace(self, server=server)
        finally:
            server.close()

    def available(self) -> str | None:
        """None: this machine is always there."""
        return None

    def facts(self) -> dict[str, object]:
        """Processor, cores and what is known of the clock."""
        return {
            "device": self.name,
            "machine": platform.machine(),
            "cpu": _cpu_model(),
            "cores": usable_cores(),
            "ghz": measured_ghz(),
            "system": f"{platform.system()} {platform.release()}",
        }

    def clocks(self) -> dict[int, float]:
        """As Linux tells them; see `Device.clocks`."""
        found = {}
        for core in core_numbers():
            with suppress(OSError, ValueError):
                path = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
                found[core] = int(path.read_text()) / 1000
        return found

    def run(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name of one inference; see `Device.run`."""
        with tempfile.TemporaryDirectory(prefix="pconvgen-local-") as name:
            return self._work(Path(name), model, inputs, threads, cores, seconds=None)

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
        """Outputs of one inference and times of repeated ones; see `Device.measure`."""
        with tempfile.TemporaryDirectory(prefix="pconvgen-local-") as name:
            folder = Path(name)
            cooled = cool_down(at_start())
            outputs = self._work(folder, model, inputs, threads, cores, seconds=seconds, evict=evict)
            told = json.loads((folder / "times.json").read_text())
        times = tuple(told["times ms"])
        return outputs, BenchResult(
            median_ms=statistics.median(times),
            min_ms=min(times),
            times_ms=times,
            threads=threads,
            cores=tuple(cores or ()),
            device=self.name,
            target=model.target,
            conditions=told["conditions"] | ({"cooled s": cooled} if cooled else {}),
            throttled=told["throttled"],
        )

    def _work(
        self,
        folder: Path,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        threads: int,
        cores: Sequence[int] | None,
        seconds: float | None,
        evict: int = 0,
    ) -> dict[str, np.ndarray]:
        """Has a worker answer one request: the outputs; what else it writes is in the folder."""
        chosen = check_threads(threads, cores)
        check_library(model, platform.machine(), remedy="use the emulated device, or a phone")
        np.savez(folder / "inputs.npz", *ordered_inputs(model, inputs))
        request = {
            "library": str(model.path.resolve()),
            "seconds": seconds,
            "threads": threads,
            "cores": chosen,
            "evict": evict,
        }
        (folder / "request.json").write_text(json.dumps(request))
        what, remedy = f"{model.path}: the model", "compile the model again, on this machine"
        if self.server is None:
            command = [sys.executable, "-m", "pconvgen.devices.worker", str(folder)]
            run_child(command, what, timeout_s=self.timeout_s, remedy=remedy)
        else:
            self.server.answer(folder, what, remedy)
        with np.load(folder / "outputs.npz") as stored:
            return named_outputs(model, [stored[f"arr_{index}"] for index in range(len(stored.files))])


def _cpu_model() -> str:
    """The processor's name as Linux tells it, else its family."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
