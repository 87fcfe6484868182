"""The pool, norm and interleave templates over random shapes, between inaccessible pages, against NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray

from pconvgen.schedules import ISAS
from pconvgen.targets.host import cpu_flags
from pconvgen.templates.layout.proposals import layouts
from pconvgen.templates.movement.interleave import InterleaveKernel
from pconvgen.templates.operators.global_pool import GlobalPoolKernel
from pconvgen.templates.operators.normalise import NormKernel
from pconvgen.templates.operators.pool import PoolKernel
from pconvgen.tvm_compat.building import compile_module
from pconvgen.values.planes import PlaneLayout, plain_layout
from pconvgen.values.workload import Activation, ConvWorkload, X
from tests.guarded import Guarded
from tests.planes import in_planes
from tests.references import windows

pytestmark = pytest.mark.host

CPUS = {8: ("haswell", {"avx2", "fma"}), 16: ("skylake-avx512", {"avx512f", "avx512vl"})}
BATCH = 60
HALVED = Activation("multiply", (X, 0.5))

Case = tuple[Any, list[NDArray[np.float32]], NDArray[Any], NDArray[Any]]
"""A kernel, its inputs, its output, and NaN where nothing of that belongs."""


def images(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Numbers, with what is none among them now and then."""
    data = rng.standard_normal(shape).astype(np.float32)
    special = rng.choice([np.nan, np.inf, -np.inf], shape, p=[0.5, 0.25, 0.25]).astype(np.float32)
    return np.where(rng.random(shape) < rng.choice([0, 0.02]), special, data)


def random_place(
    rng: np.random.Generator, batch: int, channels: int, size: tuple[int, int], lanes: int, *, main: bool
) -> tuple[PlaneLayout, int]:
    """A writable layout of a tensor, with its first channel there."""
    isa = ISAS["avx2" if lanes == 8 else "avx512"]
    while rng.random() < 0.8:
        kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        reader = ConvWorkload(batch, channels, *size, 1, (kernel,) * 2, (stride,) * 2, (kernel // 2,) * 4)
        if min(reader.out_height, reader.out_width) < 1:
            continue
        found = [x for x in layouts(reader, isa) if x.writable and (not main or x.main is not None)]
        if found:
            return replace(found[rng.integers(len(found))], channels=channels + 2), int(rng.integers(3))
    return plain_layout(channels, *size), 0


def random_pool(rng: np.random.Generator, lanes: int) -> Case:
    largest = int(rng.choice([3, 4, 14]))
    kernel, stride = ((int(a), int(b)) for a, b in (rng.integers(1, largest + 1, 2), rng.integers(1, 5, 2)))
    dilation = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if rng.random() < 0.3 else (1, 1)
    # Padding of a whole window and more: some windows then hold none of the input.
    padding = (int(rng.integers(0, kernel[0] + 1)), int(rng.integers(0, kernel[1] + 1)))
    size = (int(rng.integers(1, 24)), int(rng.integers(1, [8, 40, 300][rng.integers(3)])))
    rows, columns = (
        max(1, (n + p + int(rng.integers(0, k + 1)) - (k - 1) * d - 1) // s + 1)
        for n, p, k, d, s in zip(size, padding, kernel, dilation, stride, strict=True)
    )
    batch, channels = int(rng.integers(1, 3)), int(rng.integers(1, 4) if rng.random() < 0.8 else rng.integers(15, 35))
    kind = ["max", "avg"][rng.integers(2)]
    data = images(rng, batch, channels, *size)
    source, first = random_place(rng, batch, channels, size, lanes, main=True)
    target, second = random_place(rng, batch, channels, (rows, columns), lanes, main=False)
    slots = (first, second)
    pool = PoolKernel(kind, batch, channels, source, target, slots, kernel, stride, dilation, padding, lanes)
    inputs = [in_planes(source, data, first + np.arange(channels))]
    flat = data.reshape(-1, *size)
    if kind == "max":
        expected = windows(flat, -np.inf, kernel, stride, dilation, padding, (rows, columns)).max(axis=-1)
    else:
        row_scale, column_scale = (rng.standard_normal(count).astype(np.float32) for count in (rows, columns))
        inputs += [row_scale, column_scale]
        with np.errstate(invalid="ignore"):
            sums = windows(flat.astype(float), 0, kernel, stride, dilation, padding, (rows, columns)).sum(axis=-1)
        expected = sums * row_scale[:, None] * column_scale
    expected = expected.reshape(batch, channels, rows, columns)
    output, own = (in_planes(target, of, second + np.arange(channels)) for of in (expected, np.ones_like(expected)))
    return pool, inputs, output, own


def random_global_pool(rng: np.random.Generator, lanes: int) -> Case:
    kind, batch, channels = ["max", "avg"][rng.integers(2)], int(rng.integers(1, 3)), int(rng.integers(1, 10))
    size = (int(rng.integers(1, 30)), int(rng.integers(1, [5, 20, 90][rng.integers(3)])))
    data = images(rng, batch, channels, *size)
    while True:
        source, first = random_place(rng, batch, channels, size, lanes, main=True)
        if GlobalPoolKernel.readable(kind, source):
            break
    inputs = in_planes(source, data, first + np.arange(channels))
    flat = data.reshape(batch * channels, -1)
    with np.errstate(invalid="ignore"):
        expected = flat.max(axis=1) if kind == "max" else flat.astype(float).mean(axis=1)
    kernel = GlobalPoolKernel(kind, batch, channels, source, first, lanes)
    return kernel, [inputs], expected, np.ones_like(expected)


def random_norm(rng: np.random.Generator, lanes: int) -> Case:
    groups, elements, joint = int(rng.integers(1, 4)), bool(rng.random() < 0.3), bool(rng.random() < 0.3)
    batch, channels = int(rng.integers(1, 3)), groups * int(rng.integers(1, 4))
    size = (int(rng.integers(1, 20)), int(rng.integers(1, [5, 20, 150][rng.integers(3)])))
    mean, deviation = float(rng.choice([0, 3, 1e4])), float(rng.choice([0.1, 1, 30]))
    data = images(rng, batch, channels, *size) * np.float32(deviation) + np.float32(mean)
    source, first = random_place(rng, batch, channels, size, lanes, main=True)
    target, second = random_place(rng, batch, channels, size, lanes, main=False)
    places = (source, target, (first, second))
    norm = NormKernel(batch, channels, groups, joint, *places, elements, 1e-3, HALVED, lanes)
    scale, shift = (rng.standard_normal(norm.factors).astype(np.float32) for _ in range(2))
    grouped = data.astype(float).reshape(batch, groups, -1)
    axes = (0, 2) if joint else (2,)
    with np.errstate(invalid="ignore"):
        centred = grouped - grouped.mean(axes, keepdims=True)
        whole = (centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-3)).reshape(data.shape)
    per_channel = (1, 1, *size) if elements else (1, channels, 1, 1)
    expected = 0.5 * (whole * scale.reshape(per_channel) + shift.reshape(per_channel))
    inputs = [in_planes(source, data, first + np.arange(channels)), scale, shift]
    output, own = (in_planes(target, of, second + np.arange(channels)) for of in (expected, np.ones_like(expected)))
    return norm, inputs, output, own


def random_interleave(rng: np.random.Generator, lanes: int) -> Case:
    batch, groups, channels = (int(n) for n in rng.integers(1, 4, 3))
    stride = (int(rng.integers(1, 9)), int(rng.integers(1, 9))) if rng.random() < 0.3 else (2, 2)
    source = (int(rng.integers(1, 12)), int(rng.integers(1, 60)))
    shift = (int(rng.integers(0, stride[0] * source[0])), int(rng.integers(0, stride[1] * min(source[1], 4))))
    output = tuple(
        int(rng.integers(1, s * n - cut + 1)) if rng.random() < 0.3 else s * n - cut
        for s, n, cut in zip(stride, source, shift, strict=True)
    )
    data = rng.standard_normal((batch, groups * stride[0] * stride[1] * channels, *source)).astype(np.float32)
    phases = data.reshape(batch, groups, *stride, channels, *source).transpose(0, 1, 4, 5, 2, 6, 3)
    whole = phases.reshape(batch, groups * channels, source[0] * stride[0], source[1] * stride[1])
    expected = whole[:, :, shift[0] : shift[0] + output[0], shift[1] : shift[1] + output[1]]
    return (
        InterleaveKernel(batch, groups, channels, stride, source, shift, (output[0], output[1]), lanes),
        [data],
        expected,
        np.ones_like(expected),
    )


@pytest.mark.parametrize("lanes", CPUS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "count"),
    [(random_pool, BATCH), (random_global_pool, BATCH), (random_norm, BATCH // 4), (random_interleave, BATCH)],
)
def test_random_shapes(make: Any, count: int, seed: int, lanes: int) -> None:
    cpu, needs = CPUS[lanes]
    with open("/proc/cpuinfo") as file:
        if not needs <= cpu_flags(file.read()):
            pytest.skip(f"this processor is no {cpu}")
    rng = np.random.default_rng([seed, lanes])
    cases = [make(rng, lanes) for _ in range(count)]
    functions = {f"k{i}": case[0].build().with_attr("global_symbol", f"k{i}") for i, case in enumerate(cases)}
    library = compile_module(tvm.IRModule(functions), tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    for index, (kernel, inputs, expected, place) in enumerate(cases):
        for at in ("start", "end"):
            output = Guarded(np.full(expected.shape, np.nan, np.float32), at, writable=True)
            library[f"k{index}"](*(Guarded(data, at, writable=False).array for data in inputs), output.array)
            assert output.intact, kernel
            # What belongs to nobody keeps its value, or is a zero beside a row.
            own = ~np.isnan(place)
            assert not np.nan_to_num(output.array[~own]).any(), kernel
            np.testing.assert_allclose(output.array[own], expected[own], rtol=1e-5, atol=1e-4, err_msg=str(kernel))


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 2), (2, 3), (3, 3), (4, 4)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_no_element_is_loaded_alone(kind: str, stride: int, kernel: int) -> None:
    """The hot loops of common pools are whole vectors: no vector is put together from elements."""
    output = (64 * 4 - kernel) // stride + 1
    output -= output % 16
    size = (output - 1) * stride + kernel
    places = plain_layout(8, size, size), plain_layout(8, output, output)
    pool = PoolKernel(kind, 1, 8, *places, (0, 0), (kernel,) * 2, (stride,) * 2, (1, 1), (0, 0), 16)
    code = assembly(pool)
    assert ("vmaxps" if kind == "max" else "vaddps") in code
    for single in ("vmaxss", "vaddss", "vinsertps", "vgatherdps", "vgatherqps"):
        assert single not in code


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_interleaved_rows_are_stored_as_vectors(stride: int) -> None:
    code = assembly(InterleaveKernel(1, 1, 8, (stride, stride), (32, 32), (0, 0), (32 * stride,) * 2, 16))
    assert "zmm" in code
    for single in ("vinsertps", "vextractps", "vmovss"):
        assert single not in code


def assembly(kernel: Any) -> str:
    """AVX-512 code of the kernel's loops, without what checks the arguments."""
    module = tvm.IRModule({"kernel": kernel.build().with_attr("global_symbol", "kernel")})
    library = compile_module(module, tvm.target.Target({"kind": "llvm", "mcpu": "skylake-avx512"}))
    text: str = library.mod.inspect_source("asm")
    return text[text.index("kernel_compute_:") :]
