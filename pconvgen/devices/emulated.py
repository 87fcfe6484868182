"""An ARM device without ARM hardware: models run under qemu, their instructions are counted.

There are no times: how long emulation takes says nothing about ARM. The count of one single-threaded inference is the
figure to compare kernels by; the same library gives the same count each time. Kernels that do the same with as many
instructions may differ in how well they fill a core's pipelines: where llvm-mca is installed, tuning goes by the cycles
that it estimates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pconvgen.affinity import format_cores
from pconvgen.devices import static_cycles, toolchain
from pconvgen.devices.container import read_tensors, write_tensors
from pconvgen.devices.counts import Span, read_spans
from pconvgen.devices.device import BenchResult, Device, Model, check_library, named_outputs, ordered_inputs
from pconvgen.devices.process import run_child
from pconvgen.devices.units import CYCLES, INSTRUCTIONS
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.targets.presets import TARGETS

# For processors that qemu does not emulate: every feature that any of them has.
DEFAULT_CPU = "max"


@dataclass(frozen=True)
class EmulatedDevice(Device):
    """Runs aarch64 libraries of Linux and Android under qemu-user.

    Attributes
    ----------
    timeout_s: after which a run or a count is a failure.
    estimates: whether `measure` estimates cycles too, which takes about a second for each kernel of a model.
    """

    timeout_s: float = 600
    name: str = "emulated"
    estimates: bool = False

    @property
    def unit(self) -> str:
        """Instructions, or the cycles that they are estimated to take."""
        return CYCLES if self.estimates else INSTRUCTIONS

    @contextmanager
    def session(self) -> Iterator[EmulatedDevice]:
        """The device; it estimates cycles where llvm-mca is installed."""
        yield replace(self, estimates=static_cycles.version() is not None)

    def available(self) -> str | None:
        """Why it cannot be used, None when it can. The first call fetches the runtime and compiles the programs."""
        try:
            self._command("generic")
            toolchain.host_program()
            toolchain.counting_plugin()
        except PconvgenError as error:
            return str(error)
        return None

    def facts(self) -> dict[str, object]:
        """The emulator, and what its figures are worth."""
        facts = {
            "device": self.name,
            "machine": "aarch64",
            "emulator": f"qemu {toolchain.emulator_version(toolchain.emulator())}",
            "cores": 1,
            "ghz": None,
            "times": "none: emulation has instruction counts only",
            "c_library": "glibc, which also stands in for Android's bionic",
        }
        return facts | {"cycles": f"estimated by llvm-mca, {static_cycles.version()}"} if self.estimates else facts

    def run(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name of one inference; see `Device.run`. More threads are allowed and bring no speed.

        Raises
        ------
        UsageError: fewer threads than one, or any choice of cores.
        """
        _no_cores(cores)
        if threads < 1:
            raise UsageError(
                "impossible number of threads", found=threads, expected="1 or more", remedy="leave --threads out"
            )
        with tempfile.TemporaryDirectory(prefix="pconvgen-emulated-") as name:
            return named_outputs(model, self._work(Path(name), model, inputs, threads))

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
        """Outputs and instructions of one inference; one is enough, and caches do not matter. See `Device.measure`.

        Raises
        ------
        UsageError: more than one thread (waiting threads spin, and their count is chance), or any choice of cores.
        """
        _no_cores(cores)
        if threads != 1:
            raise UsageError(
                "instructions are counted with one thread", found=threads, expected=1, remedy="leave --threads out"
            )
        outputs, span = self.profile(model, inputs)
        return outputs, BenchResult(
            median_ms=None,
            min_ms=None,
            times_ms=(),
            threads=threads,
            device=self.name,
            target=model.target,
            instructions=sum(span.classes.values()),
            classes=span.classes,
            cycles=self._cycles(span, model) if self.estimates else None,
        )

    def _cycles(self, span: Span, model: Model) -> float:
        return static_cycles.estimate(span, static_cycles.model_of(_cpu_of(model.target)))

    def profile(self, model: Model, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Span]:
        """Outputs of one inference with one thread, and what it executes: instructions by class, and their code.

        Raises what `run` raises.
        """
        with tempfile.TemporaryDirectory(prefix="pconvgen-emulated-") as name:
            counts = Path(name) / "counts.json"
            outputs = named_outputs(model, self._work(Path(name), model, inputs, 1, counts))
            return outputs, read_spans(counts)[-1]

    def _work(
        self, folder: Path, model: Model, inputs: Mapping[str, np.ndarray], threads: int, counts: Path | None = None
    ) -> list[np.ndarray]:
        """Runs the model once; with `counts`, to which the instruction counts go, three times."""
        check_library(model, "aarch64", remedy="use the local device, or compile for a 64-bit ARM target")
        write_tensors(folder / "inputs", ordered_inputs(model, inputs))
        # The program sees the same arguments and environment whatever the paths here are: both lie on its stack, and
        # where the stack begins shows in the counts.
        (folder / "model.so").symlink_to(model.path.resolve())
        options = ["-E", f"TVM_NUM_THREADS={threads}"]
        arguments = ["./model.so", "inputs", "outputs"]
        if counts:
            options += ["-plugin", f"{toolchain.counting_plugin()},out={counts}"]
            arguments.append("count")
        command = [*self._command(_cpu_of(model.target)), *options, str(toolchain.host_program()), *arguments]
        try:
            # A crash leaves its core file where the program runs, which is in the folder.
            what, remedy = f"{model.path}: the emulated model", "compile the model again"
            run_child(command, what, timeout_s=self.timeout_s, cwd=folder, env={}, remedy=remedy)
        except PconvgenError as error:
            if counts and "plugin" in (error.found or ""):
                raise PconvgenError(
                    "this qemu does not load the counting plugin",
                    found=f"{toolchain.emulator_version(toolchain.emulator())}: {error.found}",
                    expected="a dynamically linked qemu 6 to 8",
                    remedy="apt-get install qemu-user on Debian 12 or Ubuntu 22.04 and 24.04",
                ) from error
            raise
        return read_tensors(folder / "outputs")

    def _command(self, cpu: str) -> list[str]:
        """The emulator with the options that every program needs.

        Raises
        ------
        PconvgenError: there is no emulator or no C library for ARM programs.
        """
        qemu = toolchain.emulator()
        known = cpu if cpu in toolchain.emulated_cpus(qemu) else DEFAULT_CPU
        libraries = f"LD_LIBRARY_PATH={toolchain.bionic_names()}"
        return [qemu, "-L", str(toolchain.sysroot()), "-cpu", known, "-E", libraries]


def _no_cores(cores: Sequence[int] | None) -> None:
    if cores is not None:
        raise UsageError(
            "an emulated device has no cores to choose from",
            found=format_cores(cores) or "none",
            remedy="leave --cores out, or run a library for this machine on the local device",
        )


def _cpu_of(target: str) -> str:
    """LLVM's name of the processor, by which qemu knows it too; the default for targets of the user's own."""
    return TARGETS[target].cpu if target in TARGETS and target != "host" else DEFAULT_CPU
