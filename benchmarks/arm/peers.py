"""Other engines' instructions for the same network: their ARM wheels under emulation, counted by the same plugin.

Their converters run on this machine, in the environments of benchmarks/engines/engine.py.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.arm.userland import python_command, site_packages
from benchmarks.engines import guest
from benchmarks.engines.engine import LITERT, MNN, NCNN, ONNXRUNTIME, Engine
from benchmarks.engines.running import running
from benchmarks.models.exported import Exported
from pconvgen.devices import toolchain
from pconvgen.devices.counts import Span, net, read_spans
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError

TARGET = "cortex-a76"
"""What libraries are compiled for and what is emulated."""
PROGRAM = Path(guest.__file__).with_name("counted.py")
TIMEOUT_S = 900
TOLERANCE, HALF_TOLERANCE = 1e-2, 0.5
"""Largest error relative to the largest output: MNN's Winograd convolution of large tiles loses three digits, and sums
in float16 through a hundred layers of random weights leave one digit, if that."""


@dataclass(frozen=True)
class Peer:
    """An engine on ARM.

    Attributes
    ----------
    engine: whose converter and session it is.
    requirements: the wheels that its own needs to be imported.
    half: whether it computes in float16; it has a session of its own for that.
    """

    engine: Engine
    requirements: tuple[str, ...]
    half: bool = False

    @property
    def name(self) -> str:
        """As tables print it."""
        return f"{self.engine.name} fp16" if self.half else self.engine.name

    @property
    def session(self) -> str:
        """Key of SESSIONS."""
        return f"{self.engine.session} half" if self.half else self.engine.session

    @property
    def wheels(self) -> tuple[str, ...]:
        """All that is fetched, its own of the version that this machine's environment has."""
        return (self.engine.requirements[0], *self.requirements)


NUMPY = "numpy==2.4.6"
PEERS = (
    Peer(ONNXRUNTIME, (NUMPY, "flatbuffers==25.12.19", "packaging==26.3", "protobuf==7.36.2")),
    Peer(
        LITERT,
        (
            NUMPY,
            "flatbuffers==25.12.19",
            "backports.strenum==1.2.8",
            "protobuf==7.36.2",
            "ml_dtypes==0.6.0",
            "tqdm==4.70.1",
            "typing_extensions==4.16.0",
        ),
    ),
    Peer(MNN, (NUMPY,)),
    Peer(NCNN, (NUMPY,)),
)
HALF_PEERS = (Peer(MNN, (NUMPY,), half=True), Peer(NCNN, (NUMPY,), half=True))
"""Those that compute a float32 network in float16; the Python packages of the others have no option for it."""
FORMATS = {"float32": PEERS, "float16": HALF_PEERS}
"""What is computed in, and the engines that do."""


def count_peer(peer: Peer, model: Exported, cpu: str, timeout_s: float = TIMEOUT_S) -> Span:
    """What one inference of a network executes.

    Parameters
    ----------
    peer: the engine.
    model: the network, which nobody else writes files beside meanwhile.
    cpu: what is emulated.
    timeout_s: of the emulation.

    Raises
    ------
    PconvgenError: the engine is not to be had, fails, or computes something else.
    """
    site = site_packages(peer.wheels)
    with running(peer.engine) as converter:
        converter.convert(model.path)
    with tempfile.TemporaryDirectory(prefix="pconvgen-peer-") as name:
        folder = Path(name)
        source, target, counts = folder / "inputs.npz", folder / "outputs.npz", folder / "counts.json"
        np.savez(source, **model.inputs)
        options = ["-cpu", cpu, "-plugin", f"{toolchain.counting_plugin()},out={counts}"]
        program = [str(PROGRAM), peer.session, str(model.path), str(source), str(target), *model.expected]
        command = [*python_command(site, options), *program]
        run_child(command, f"{peer.name} under emulation", timeout_s=timeout_s, cwd=folder)
        with np.load(target) as file:
            error = model.error([file[key] for key in file.files])
        once, twice = read_spans(counts)
    allowed = HALF_TOLERANCE if peer.half else TOLERANCE
    if not error < allowed:  # also when it is not a number
        raise PconvgenError(f"{peer.name} computes something else", found=f"error {error:.1e}", expected=allowed)
    return net(twice, once)
