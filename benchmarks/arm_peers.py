"""Other engines' instructions for the same layer: their ARM wheels under emulation, counted by the same plugin."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arm_userland import python_command, site_packages
from pconvgen.devices import toolchain
from pconvgen.devices.counts import Span, net, read_spans
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError
from pconvgen.workload import ConvWorkload

GUEST = Path(__file__).with_name("arm_guest.py")
TIMEOUT_S = 900
TOLERANCE = 1e-2
"""Largest error relative to the largest output: MNN's Winograd convolution of large tiles loses three digits."""


@dataclass(frozen=True)
class Peer:
    """An engine.

    Attributes
    ----------
    name: its name in arm_guest.py.
    requirements: its wheel first, then the wheels that it needs to be imported.
    """

    name: str
    requirements: tuple[str, ...]


NUMPY = "numpy==2.4.6"
PEERS = (
    Peer("onnxruntime", ("onnxruntime==1.31.1", NUMPY, "flatbuffers==25.12.19", "packaging==26.3", "protobuf==7.36.2")),
    Peer(
        "ai-edge-litert",
        (
            "ai-edge-litert==2.3.0",
            NUMPY,
            "flatbuffers==25.12.19",
            "backports.strenum==1.2.8",
            "protobuf==7.36.2",
            "ml_dtypes==0.6.0",
            "tqdm==4.70.1",
            "typing_extensions==4.16.0",
        ),
    ),
    Peer("mnn", ("mnn==3.6.1", NUMPY)),
    Peer("ncnn", ("ncnn==1.0.20261020", NUMPY)),
)


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """A dense layer with its data and what it must compute, all float32 NCHW; the epilogue is bias and ReLU."""

    workload: ConvWorkload
    weight: NDArray[np.float32]
    data: NDArray[np.float32]
    bias: NDArray[np.float32]
    expected: NDArray[np.float32]


def count_peer(peer: Peer, layer: DenseLayer, cpu: str) -> Span:
    """What one inference of the layer executes.

    Raises
    ------
    PconvgenError: the engine is not to be had, fails, or computes something else.
    """
    site = site_packages(peer.requirements)
    with tempfile.TemporaryDirectory(prefix="pconvgen-peer-") as name:
        folder = Path(name)
        np.savez(folder / "layer.npz", data=layer.data, weight=layer.weight, bias=layer.bias)
        _write_onnx(layer, folder / "layer.onnx")
        counts = folder / "counts.json"
        options = ["-cpu", cpu, "-plugin", f"{toolchain.counting_plugin()},out={counts}"]
        command = [*python_command(site, options), str(GUEST), peer.name]
        run_child(command, f"{peer.name} under emulation", timeout_s=TIMEOUT_S, cwd=folder)
        output = np.load(folder / "output.npy")
        once, twice = read_spans(counts)
    error = float(np.abs(output - layer.expected).max() / np.abs(layer.expected).max())
    if not error < TOLERANCE:
        raise PconvgenError(f"{peer.name} computes another layer", found=f"error {error:.1e}", expected=TOLERANCE)
    return net(twice, once)


def _write_onnx(layer: DenseLayer, path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w = layer.workload
    nodes = [
        helper.make_node("Conv", ["data", "weight", "bias"], ["sum"], kernel_shape=w.kernel, pads=w.padding),
        helper.make_node("Relu", ["sum"], ["output"]),
    ]
    data, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in (("data", layer.data), ("output", layer.expected))
    )
    weights = [numpy_helper.from_array(layer.weight, "weight"), numpy_helper.from_array(layer.bias, "bias")]
    graph = helper.make_graph(nodes, "layer", [data], [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
