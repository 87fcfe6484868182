"""This machine as a device: models run in a process of their own."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pconvgen.devices.cores import check_threads, usable_cores
from pconvgen.devices.device import (
    BenchResult,
    Model,
    check_library,
    named_outputs,
    ordered_inputs,
)
from pconvgen.devices.process import run_child
from pconvgen.targets.clock import measured_ghz
from pconvgen.targets.host import CPUINFO


@dataclass(frozen=True)
class LocalDevice:
    """Runs libraries of this machine's processor.

    Attributes
    ----------
    timeout_s: after which a run or a measurement is a failure.
    """

    timeout_s: float = 600
    name: str = "local"

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

    def bench(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
        seconds: float = 0.5,
    ) -> BenchResult:
        """Wall-clock times of repeated inferences; see `Device.bench`."""
        return self.measure(model, inputs, threads=threads, cores=cores, seconds=seconds)[1]

    def measure(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
        seconds: float = 0.5,
    ) -> tuple[dict[str, np.ndarray], BenchResult]:
        """Outputs of one inference and times of repeated ones; see `Device.measure`."""
        with tempfile.TemporaryDirectory(prefix="pconvgen-local-") as name:
            folder = Path(name)
            outputs = self._work(folder, model, inputs, threads, cores, seconds=seconds)
            times = tuple(json.loads((folder / "times.json").read_text()))
        return outputs, BenchResult(
            median_ms=statistics.median(times),
            min_ms=min(times),
            times_ms=times,
            threads=threads,
            cores=tuple(cores or ()),
            device=self.name,
            target=model.target,
        )

    def _work(
        self,
        folder: Path,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        threads: int,
        cores: Sequence[int] | None,
        seconds: float | None,
    ) -> dict[str, np.ndarray]:
        """Has a worker answer one request: the outputs; what else it writes is in the folder."""
        chosen = check_threads(threads, cores)
        check_library(model, platform.machine(), remedy="use the emulated device, or a phone")
        np.savez(folder / "inputs.npz", *ordered_inputs(model, inputs))
        request = {"library": str(model.path.resolve()), "seconds": seconds, "threads": threads, "cores": chosen}
        (folder / "request.json").write_text(json.dumps(request))
        run_child(
            [sys.executable, "-m", "pconvgen.devices.worker", str(folder)],
            f"{model.path}: the model",
            timeout_s=self.timeout_s,
            # TVM_NUM_THREADS is how its runtime is told; OMP_NUM_THREADS would be asked next.
            env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            remedy="compile the model again, on this machine",
        )
        with np.load(folder / "outputs.npz") as stored:
            return named_outputs(model, [stored[f"arr_{index}"] for index in range(len(stored.files))])


def _cpu_model() -> str:
    """The processor's name as Linux tells it, else its family."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
