"""Random kernels for ARM under emulation, one by one, without TVM's runtime: 32-bit ARM has none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi

from pconvgen.devices.container import write_tensors
from pconvgen.targets.linker import link
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.precision import FLOAT32, Precision, precision
from tests.denormals import LOOPS, build, flushed, operands
from tests.random_kernels import HALF, TEMPLATES, compiled, draw, kernel_name

pytestmark = pytest.mark.cross

WORKLOADS = 20
"""Of each template: the host runs thousands through the same templates, here it is the code of the back end."""
SLOW = {"winograd": 6}
"""Templates of which fewer are checked: their kernels take seconds to compile."""
HALF_WORKLOADS = 5
STORED, COMPUTED = precision("float16", accumulate="float32"), precision("float16")


@dataclass(frozen=True)
class Machine:
    """A target and the tools that run its code."""

    target: str
    compiler: str
    emulator: str

    @property
    def sysroot(self) -> Path:
        return Path("/usr") / self.compiler.removesuffix("-gcc")


MACHINES = {
    "neon": Machine("cortex-a76", "aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "armv7a": Machine("cortex-a7", "arm-linux-gnueabihf-gcc", "qemu-arm"),
}


@pytest.fixture(scope="module", params=MACHINES)
def isa(request: pytest.FixtureRequest) -> str:
    machine = MACHINES[request.param]
    for tool in (machine.compiler, machine.emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: make system")
    return str(request.param)


@pytest.fixture(scope="module")
def program(isa: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that calls one kernel."""
    include = Path(tvm_ffi.__file__).parent / "include"
    output = tmp_path_factory.mktemp(isa) / "run_kernel"
    source = Path(__file__).with_name("run_kernel.c")
    command = [MACHINES[isa].compiler, "-O1", "-Wall", f"-I{include}", "-rdynamic", source, "-o", output, "-ldl"]
    subprocess.run(command, check=True)
    return output


def emulated(isa: str, program: Path, library: Path, kernel: str) -> Callable[..., None]:
    """A kernel as a function that fills the last of its arguments."""
    machine, folder = MACHINES[isa], library.parent

    def call(*arrays: np.ndarray) -> None:
        write_tensors(folder / "arguments", arrays)
        command = [machine.emulator, "-L", machine.sysroot, program, library, kernel, "arguments", "output"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{kernel}: {done.returncode} {done.stderr}"
        output = arrays[-1]
        at_start, at_end = np.fromfile(folder / "output", output.dtype).reshape(2, *output.shape)
        np.testing.assert_array_equal(at_start, at_end, "results depend on where the buffers are")
        output[...] = at_start

    return call


@pytest.mark.parametrize("template", TEMPLATES)
def test_random_workloads_are_right(template: str, isa: str, program: Path, tmp_path: Path) -> None:
    check(template, isa, program, tmp_path, FLOAT32, SLOW.get(template, WORKLOADS))


@pytest.mark.parametrize("formats", [precision(weights="float16"), STORED, COMPUTED], ids=str)
@pytest.mark.parametrize("template", HALF)
def test_random_workloads_in_half_precision(
    template: str, formats: Precision, isa: str, program: Path, tmp_path: Path
) -> None:
    if isa == "armv7a" and (formats.activations == "float16" or template == "pack"):
        pytest.skip("32-bit ARM has float16 weights only")
    check(template, isa, program, tmp_path, formats, HALF_WORKLOADS)


def check(template: str, isa: str, program: Path, tmp_path: Path, formats: Precision, count: int) -> None:
    target: Any = get_target(MACHINES[isa].target)
    cases = {number: draw(template, isa, number, formats) for number in range(count)}
    compiled(cases, llvm_target(target)).mod.write_to_file(str(tmp_path / "kernels.o"))
    link([tmp_path / "kernels.o"], tmp_path / "kernels.so", target)
    for number, case in cases.items():
        kernels = [kernel_name(number, index) for index in range(len(case.kernels))]
        functions = [emulated(isa, program, tmp_path / "kernels.so", kernel) for kernel in kernels]
        assert case.check(functions, "start") is None, f"{template} {isa} {number}: {case.text}"


@pytest.mark.parametrize("element", ["float32", "float16"])
@pytest.mark.parametrize("loops", LOOPS)
def test_no_operation_takes_or_gives_a_denormal_number(
    loops: str, element: str, isa: str, program: Path, tmp_path: Path
) -> None:
    """The program itself checks that its own arithmetic still does, behind each kernel that it calls."""
    if isa == "armv7a" and element == "float16":
        pytest.skip("32-bit ARM has float16 weights only")
    target: Any = get_target(MACHINES[isa].target)
    build(loops, llvm_target(target), element).mod.write_to_file(str(tmp_path / "kernels.o"))
    link([tmp_path / "kernels.o"], tmp_path / "kernels.so", target)
    found = np.full_like(operands(element), np.nan)
    emulated(isa, program, tmp_path / "kernels.so", "kernel")(operands(element), found)
    np.testing.assert_array_equal(found, flushed(element))
