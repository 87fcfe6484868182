"""A network measured on this machine, in turns by itself and over a server on the loopback interface."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import pconvgen
from benchmarks.measuring import CORE
from benchmarks.models.cases import case_of
from pconvgen.devices import bundle, get_device
from pconvgen.report.console import output

NETWORK = "mobilenet_v1"
ROUNDS = 7
PROMISED = 1.05


def run() -> bool:
    """Prints both times; whether the promise is kept."""
    case = case_of(NETWORK)
    compiled = pconvgen.compile(pconvgen.load_model(case.build(), example=(case.image(),)))
    with tempfile.TemporaryDirectory(prefix="pconvgen-rpc-overhead-") as name:
        folder = Path(name)
        model = compiled.manifest.model(compiled.export(folder / "model.so"))
        inputs = compiled.manifest.random_inputs(0)
        command = [bundle.cached(bundle.flavor("host")) / bundle.START, "--key", "me", "--folder", folder / "sessions"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+),", server.stdout.readline())
            assert found
            devices = {"local": get_device("local"), "over RPC": get_device(f"rpc://127.0.0.1:{found[1]}/me")}
            times: dict[str, list[float]] = {name: [] for name in devices}
            for _ in range(ROUNDS):
                for which, device in devices.items():
                    result = device.bench(model, inputs, cores=CORE)
                    assert result.median_ms is not None
                    times[which].append(result.median_ms)
        finally:
            server.terminate()
            server.wait()
    local, remote = (float(np.median(times[which])) for which in devices)
    ratio = remote / local
    verdict = "ok" if ratio <= PROMISED else "MISSED"
    output().print(
        f"{NETWORK}: {local:.3f} ms by itself, {remote:.3f} ms over RPC: {ratio:.3f} (<= {PROMISED} {verdict})"
    )
    return ratio <= PROMISED
