"""Random layers, and their kernels against a plain reference."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
from numpy.typing import NDArray
from torch.nn import functional

from pconvgen.schedules.isa import Isa
from pconvgen.schedules.schedule import Schedule
from pconvgen.sparsity import STRUCTURES, Candidate, candidates, encode
from pconvgen.templates.channels import ChannelKernel
from pconvgen.templates.instance import Instance, instantiate
from pconvgen.tvm_compat import compile_module
from pconvgen.workload import ConvWorkload, Epilogue
from tests.activations import activated, random_activation

_LIBC = ctypes.CDLL(None, use_errno=True)

TOLERANCE = 1e-5
"""Largest error, relative to the largest output: float32 sums of a few thousand terms in another order."""


def random_workload(rng: np.random.Generator) -> ConvWorkload:
    """A small convolution with anything that a network may ask for, or a linear layer."""
    epilogue = Epilogue(
        bias=bool(rng.integers(2)),
        residual=bool(rng.integers(2)),
        activation=random_activation(rng),
    )
    if rng.random() < 0.2:
        rows, channels, filters = rng.integers(1, 6), rng.integers(1, 70), rng.integers(1, 70)
        return ConvWorkload(int(rows), int(channels), 1, 1, int(filters), (1, 1), epilogue=epilogue)
    kind = rng.integers(4)
    groups = int([1, 1, rng.integers(2, 4), rng.integers(2, 9)][kind])
    per_group = 1 if kind == 3 else int(rng.integers(1, 12))
    filters = groups * int(rng.integers(1, 3) if kind == 3 else rng.integers(1, 14))
    kernel = (
        tuple(int(k) for k in rng.choice([1, 2, 3, 5, 7], 2)) if rng.random() < 0.5 else (int(rng.choice([1, 3])),) * 2
    )
    stride = tuple(int(s) for s in rng.integers(1, 4, 2)) if rng.random() < 0.4 else (1, 1)
    dilation = tuple(int(d) for d in rng.integers(1, 4, 2)) if rng.random() < 0.2 else (1, 1)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(int(p) for p in rng.integers(0, 4, 4)) if rng.random() < 0.5 else (span[0] // 2, span[1] // 2) * 2
    height = max(1, span[0] - padding[0] - padding[2]) + int(rng.integers(0, 20))
    width = max(1, span[1] - padding[1] - padding[3]) + int(rng.integers(0, 30))
    return ConvWorkload(
        batch=int(rng.integers(1, 3)),
        in_channels=groups * per_group,
        height=height,
        width=width,
        out_channels=filters,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        epilogue=epilogue,
    )


def random_weight(workload: ConvWorkload, rng: np.random.Generator) -> NDArray[np.float32]:
    """A weight of a random structure and density; sometimes full, sometimes empty."""
    weight = rng.standard_normal(workload.weight_shape).astype(np.float32)
    name = rng.choice(list(STRUCTURES))
    if name == "pattern" and workload.kernel[0] * workload.kernel[1] == 1:
        name = "unstructured"
    density = float(rng.choice([0.05, 0.125, 0.25, 0.5, 1.0]))
    if rng.random() < 0.05:
        return np.zeros_like(weight)
    return STRUCTURES[name].project(weight, density, groups=workload.groups)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with its data and what it must compute."""

    workload: ConvWorkload
    weight: NDArray[np.float32]
    data: NDArray[np.float32]
    bias: NDArray[np.float32]
    residual: NDArray[np.float32]
    expected: NDArray[np.float32]


def random_layer(rng: np.random.Generator, workload: ConvWorkload | None = None) -> Layer:
    """A random layer, or one of the given shapes, with random data."""
    w = workload or random_workload(rng)
    weight = random_weight(w, rng)
    out_shape = (w.batch, w.out_channels, w.out_height, w.out_width)
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(np.float32)
    bias = rng.standard_normal(w.out_channels).astype(np.float32)
    residual = rng.standard_normal(out_shape).astype(np.float32)
    return Layer(w, weight, data, bias, residual, reference(w, weight, data, bias, residual))


def reference(w: ConvWorkload, weight: Any, data: Any, bias: Any, residual: Any) -> NDArray[np.float32]:
    """The layer in PyTorch, in double precision."""
    top, left, bottom, right = w.padding
    image, kernels, shift, other = (torch.from_numpy(array).double() for array in (data, weight, bias, residual))
    padded = functional.pad(image, (left, right, top, bottom))
    bare = functional.conv2d(padded, kernels, shift if w.epilogue.bias else None, w.stride, 0, w.dilation, w.groups)
    sums = (bare + other if w.epilogue.residual else bare).numpy()
    return activated(w.epilogue.activation, sums).astype(np.float32)


def instance_of(layer: Layer, candidate: Candidate, max_group: int, schedule: Schedule, isa: Isa) -> Instance:
    """The kernel for one encoding and schedule of a layer."""
    encoding = encode(layer.weight, candidate, layer.workload.groups, max_group)
    return instantiate(layer.workload, encoding, schedule, isa)


def all_candidates(layer: Layer) -> tuple[Candidate, ...]:
    """Every encoding of the layer's weight."""
    return candidates(layer.weight, layer.workload.groups)


def run_instances(layers: list[Layer], instances: list[Instance], target: Any) -> list[NDArray[np.float32]]:
    """Builds all kernels as one module and runs each; buffers start as NaN so that nothing unwritten passes."""
    functions = {}
    for index, instance in enumerate(instances):
        functions[f"kernel_{index}"] = instance.kernel.build()
        if instance.pack:
            functions[f"pack_{index}"] = instance.pack.build()
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    library = compile_module(module, target)
    outputs = []
    for index, (layer, instance) in enumerate(zip(layers, instances, strict=True)):
        w = layer.workload
        matrix = isinstance(instance.kernel, ChannelKernel)
        shape = layer.expected.shape[:2] if matrix else layer.expected.shape
        data = tensor(layer.data.reshape(w.batch, -1) if matrix else layer.data)
        if instance.pack:
            packed = tensor(np.full((w.batch, instance.pack.layout.size), np.nan, np.float32))
            library[f"pack_{index}"](data, packed)
            data = packed
        args = [data, *map(tensor, instance.constants)]
        if w.epilogue.bias:
            args.append(tensor(layer.bias))
        if w.epilogue.residual:
            args.append(tensor(layer.residual.reshape(shape)))
        output = tensor(np.full(shape, np.nan, np.float32))
        library[f"kernel_{index}"](*args, output)
        outputs.append(output.reshape(layer.expected.shape))
    return outputs


def tensor(array: NDArray[Any]) -> NDArray[Any]:
    """A copy between inaccessible pages: reading or writing a vector outside of it ends the process.

    Kernels assume addresses that are multiples of 64 bytes, so up to 60 bytes behind the end stay accessible.
    """
    page = mmap.PAGESIZE
    size = -(-array.nbytes // 64) * 64
    inner = max(page, -(-size // page) * page)
    memory = mmap.mmap(-1, inner + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + page + inner):
        if _LIBC.mprotect(ctypes.c_void_p(guard), page, 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    copy = np.frombuffer(memory, array.dtype, array.size, page + inner - size).reshape(array.shape)
    copy[...] = array
    return copy


def error(layer: Layer, output: NDArray[np.float32]) -> float:
    """Largest error relative to the largest output; infinite when something is not finite."""
    if not np.isfinite(output).all():
        return float("inf")
    return float(np.abs(output - layer.expected).max() / max(1.0, np.abs(layer.expected).max()))
