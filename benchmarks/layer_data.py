"""What layers compute with: random numbers, pruned, and the output that PyTorch computes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.layers import Pruning
from pconvgen.sparsity import project
from pconvgen.values.workload import ConvWorkload

OPSET, IR_VERSION = 13, 8
"""What onnx 1.14 reads."""
TOLERANCE = 1e-4
"""Largest error, relative to the largest output, of what is worth being timed."""


@dataclass(frozen=True, eq=False)
class Data:
    """Weight, input, bias and what the layer makes of them; float32, NCHW."""

    weight: NDArray[np.float32]
    data: NDArray[np.float32]
    bias: NDArray[np.float32]
    expected: NDArray[np.float32]

    def check(self, found: NDArray[np.float32], what: str) -> None:
        """Raises ValueError when `found` is not the layer's output."""
        error = float(np.abs(found - self.expected).max() / np.abs(self.expected).max())
        if not error < TOLERANCE:  # also when it is NaN
            raise ValueError(f"{what} computes something else: relative error {error:.1e}")


def random_data(w: ConvWorkload, pruning: Pruning, density: float) -> Data:
    """A layer of random numbers, pruned, with its output as PyTorch computes it."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(w.weight_shape).astype(np.float32)
    weight = pruned(weight, pruning, density, w.groups)
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(np.float32)
    bias = rng.standard_normal(w.out_channels).astype(np.float32)
    return Data(weight, data, bias, reference(w, weight, data, bias))


def pruned(weight: NDArray[np.float32], pruning: Pruning, density: float, groups: int = 1) -> NDArray[np.float32]:
    """What is left of a weight, [filters, channels / groups, height, width]: all of it if the pruning is dense."""
    if pruning.structure == "dense":
        return weight
    return project(pruning.structure, weight, density, groups=groups, **pruning.params)


def reference(
    w: ConvWorkload, weight: NDArray[np.float32], data: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Convolution, bias and ReLU as PyTorch computes them; NCHW."""
    tensors = map(torch.from_numpy, (data, weight, bias))
    return torch.nn.functional.conv2d(*tensors, w.stride, w.padding[:2], w.dilation, w.groups).relu().numpy()


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
