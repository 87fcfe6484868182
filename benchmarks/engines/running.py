"""An engine at work: a process in its own environment, driven by lines of JSON (benchmarks/engines/guest/worker.py)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.engine import LIBRARY, Engine
from benchmarks.measuring import Reading
from pconvgen.errors import PconvgenError

WORKER = Path(__file__).parent / "guest" / "worker.py"
ANSWER_S = 7200
"""Tuning takes longest."""

Arrays = Mapping[str, NDArray[np.float32]]


class Running:
    """A running engine; networks are loaded one at a time."""

    def __init__(self, engine: Engine, process: subprocess.Popen[str], errors: Path, folder: Path) -> None:
        self.engine, self._process, self._errors, self._folder = engine, process, errors, folder

    def convert(self, model: Path) -> None:
        """Has the engine's own converter read an ONNX file and write what the engine reads beside it.

        Raises PconvgenError when it cannot.
        """
        self._ask({"convert": str(model)})

    def load(self, model: Path, inputs: Arrays, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Loads a network, converted if need be, runs it once and returns its outputs, which `names` names.

        Raises PconvgenError when the engine fails.
        """
        source, output = (self._folder / name for name in ("inputs.npz", "outputs.npz"))
        np.savez(source, **inputs)
        self._ask({"load": str(model), "inputs": str(source), "outputs": str(output), "names": list(names)})
        with np.load(output) as file:
            return [file[name] for name in file.files]

    def read(self, seconds: float, repeats: int) -> Reading:
        """The median of inferences for so many seconds, and at least so many."""
        return Reading(**self._ask({"seconds": seconds, "repeats": repeats}))

    def profile(self, repeats: int) -> list[dict[str, Any]]:
        """Of a library: every kernel that one inference calls, in order, see `Tvm.profile`."""
        return self._ask({"profile": repeats})["calls"]

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
        answer = json.loads(line)
        if "error" in answer:
            raise self._failure(answer["error"])
        return answer

    def _failure(self, found: str) -> PconvgenError:
        tail = " ".join(self._errors.read_text(errors="replace").split())[-300:]
        return PconvgenError(f"{self.engine.name} failed", found=f"{found} {tail}".rstrip())


@contextmanager
def running(engine: Engine, threads: int = 1) -> Iterator[Running]:
    """The engine in a process of its own, until the block ends.

    Raises PconvgenError when its environment cannot be made.
    """
    python = engine.python()
    settings = {
        "NM_DISABLE_ANALYTICS": "1",
        "OMP_NUM_THREADS": str(threads),
        "TVM_NUM_THREADS": str(threads),
    } | ({"TVM_USE_RUNTIME_LIB": "1"} if engine is LIBRARY else {})
    with tempfile.TemporaryDirectory(prefix="pconvgen-engine-") as name:
        errors = Path(name) / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [str(python), "-I", str(WORKER), engine.session],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **settings},
            )
        try:
            yield Running(engine, process, errors, Path(name))
        finally:
            process.kill()
            process.communicate()
