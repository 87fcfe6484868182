"""The peer: DeepSparse 1.8 (Neural Magic, closed engine, x86), the fastest sparse engine there is to compare with.

It lives in an environment of its own in the user's cache folder, made on the first use, and runs in a process of its
own, because it needs an old NumPy and an old ONNX. It knows no structures, so it gets unstructured weights with as many
non-zeros. Its times are those that its engine reports; ours include packing the input.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import REPEATS, Data, Reading
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError
from pconvgen.workload import ConvWorkload

NAME = "DeepSparse"
REQUIREMENTS = ("deepsparse==1.8.0", "numpy<2", "onnx==1.14.1")
OPSET, IR_VERSION = 13, 8
"""What onnx 1.14 reads."""

PYTHONS = (sys.executable, "python3.11", "python3.10", "python3.9", "python3.8")
NEWEST = (3, 11)
INSTALL_S, ANSWER_S = 900, 120
WORKER = Path(__file__).with_name("deepsparse_worker.py")


class Peer:
    """A running engine; layers are loaded one at a time."""

    def __init__(self, process: subprocess.Popen[str], errors: Path, folder: Path) -> None:
        self._process, self._errors, self._folder = process, errors, folder

    def load(self, workload: ConvWorkload, data: Data) -> None:
        """Compiles the layer, runs it once and compares the output.

        Raises
        ------
        PconvgenError: the engine fails.
        ValueError: its output is wrong.
        """
        model, source, output = (self._folder / name for name in ("layer.onnx", "input.npy", "output.npy"))
        onnx.save(layer_model(workload, data), str(model))
        np.save(source, data.data)
        self._ask({"model": str(model), "input": str(source), "output": str(output)})
        data.check(np.load(output), NAME)

    def read(self) -> Reading:
        """The median of some runs."""
        return Reading(**self._ask({"repeats": REPEATS}))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure(str(error)) from error
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise self._failure(f"no answer in {ANSWER_S} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure(f"it ended with {self._process.wait()}")
        return json.loads(line)

    def _failure(self, found: str) -> PconvgenError:
        tail = " ".join(self._errors.read_text(errors="replace").split())[-300:]
        return PconvgenError(f"{NAME} failed", found=f"{found} {tail}".rstrip())


@contextmanager
def running() -> Iterator[Peer]:
    """The engine, until the block ends.

    Raises PconvgenError when its environment cannot be made.
    """
    python = environment()
    with tempfile.TemporaryDirectory() as name:
        errors = Path(name) / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [str(python), "-I", str(WORKER)],  # isolated: this folder's deepsparse.py is not the engine
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "NM_DISABLE_ANALYTICS": "1"},
            )
        try:
            yield Peer(process, errors, Path(name))
        finally:
            process.kill()
            process.communicate()


def environment() -> Path:
    """The Python of the engine's environment, which is made if it is not there.

    Raises PconvgenError when no Python suits it or its packages are not to be had.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pconvgen"
    folder = base / REQUIREMENTS[0].replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    if done.is_file():
        return python
    what = f"making the environment of {NAME}"
    found = _python()
    shutil.rmtree(folder, ignore_errors=True)
    remedy = "connect to a package index once"
    run_child([found, "-m", "venv", str(folder)], what, timeout_s=INSTALL_S)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    run_child(install, what, timeout_s=INSTALL_S, remedy=remedy)
    done.touch()
    return python


def _python() -> str:
    """A Python that the engine has wheels for."""
    for name in PYTHONS:
        try:
            version = run_child([name, "-c", "import sys; print(*sys.version_info[:2])"], name, timeout_s=60)
        except PconvgenError:
            continue
        if tuple(map(int, version.split())) <= NEWEST:
            return name
    raise PconvgenError(
        f"no Python for {NAME}",
        found="none of " + ", ".join(PYTHONS),
        expected="3.8 to 3.11",
        remedy="put one of them on the PATH",
    )


def layer_model(workload: ConvWorkload, data: Data) -> onnx.ModelProto:
    """The layer, convolution with bias and ReLU, as an ONNX model."""
    w = workload
    conv = helper.make_node(
        "Conv",
        ["data", "weight", "bias"],
        ["sum"],
        kernel_shape=w.kernel,
        strides=w.stride,
        pads=w.padding,
        dilations=w.dilation,
        group=w.groups,
    )
    graph = helper.make_graph(
        [conv, helper.make_node("Relu", ["sum"], ["out"])],
        "layer",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, data.data.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, data.expected.shape)],
        [numpy_helper.from_array(data.weight, "weight"), numpy_helper.from_array(data.bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
