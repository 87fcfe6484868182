"""Numbered random kernels of every template: drawn, compiled many at a time, run between inaccessible pages.

A number stands for a shape, an epilogue, a weight's structure, and one of its legal schedules, not the best one: any
that is offered must be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tvm
from numpy.typing import NDArray

from pconvgen.schedules import ISAS
from pconvgen.schedules.default import is_single_pixel, schedules
from pconvgen.schedules.schedule import PixelSchedule, Schedule
from pconvgen.schedules.winograd import winograd_schedules
from pconvgen.sparsity import Candidate, candidates, encode
from pconvgen.templates.channels import ChannelKernel
from pconvgen.templates.instance import Instance, instantiate
from pconvgen.templates.pack import PackKernel
from pconvgen.templates.pixels import PixelKernel, block_tiles, pixel_layout
from pconvgen.templates.planes import PlaneLayout
from pconvgen.templates.winograd import WinogradKernel
from pconvgen.templates.winograd_grid import View
from pconvgen.templates.winograd_product import pack_weight
from pconvgen.tvm_compat import compile_module
from pconvgen.workload import ConvWorkload
from tests.guarded import Guarded
from tests.layers import (
    TOLERANCE,
    Layer,
    error,
    random_convolution,
    random_epilogue,
    random_layer,
    random_linear,
    random_weight,
)

L2_KIB = (4, 16, 64, 1024)
"""Caches to block for: small ones cut a small layer into blocks of rows."""
BATCH = 40
"""Workloads that are compiled as one module; the more, the less each costs, up to about here."""
LARGE, LARGE_SHARE = 64, 0.3
"""Kernels of more unrolled FMAs take most of the time to compile, so only a share of them is taken."""

Functions = Sequence[Callable[..., Any]]
At = Literal["start", "end"]


@dataclass(frozen=True, eq=False)
class Case:
    """One workload.

    Attributes
    ----------
    text: what it is.
    kernels: the template instances to compile.
    check: runs the compiled kernels with every buffer at one end of its pages; what is wrong, or None.
    """

    text: str
    kernels: tuple[Any, ...]
    check: Callable[[Functions, At], str | None]


def draw(template: str, isa: str, number: int) -> Case:
    """The workload of that number."""
    return TEMPLATES[template](np.random.default_rng([*f"{template} {isa}".encode(), number]), isa)


def _pixels(rng: np.random.Generator, isa: str) -> Case:
    while True:
        w = random_convolution(rng)
        if is_single_pixel(w):
            continue
        case = _layer(rng, w, isa)
        if _unrolled(case.kernels[0]) <= LARGE or rng.random() < LARGE_SHARE:
            return case


def _unrolled(kernel: PixelKernel) -> int:
    """FMAs in the code of a kernel."""
    bodies = len(kernel.bodies) * len(kernel.bodies[0]) * kernel.group
    return sum(bodies * len(run.vectors) for run in block_tiles(kernel.workload, kernel.schedule, kernel.isa))


def _channels(rng: np.random.Generator, isa: str) -> Case:
    return _layer(rng, random_linear(rng), isa)


def _layer(rng: np.random.Generator, w: ConvWorkload, isa: str) -> Case:
    weight = random_weight(w, rng)
    candidate, max_group, schedule = _legal(rng, w, weight, isa)
    instance = instantiate(w, encode(weight, candidate, w.groups, max_group), schedule, ISAS[isa])
    kernels = (instance.kernel,) if instance.pack is None else (instance.kernel, instance.pack)
    seed = int(rng.integers(1 << 32))

    def check(functions: Functions, at: At) -> str | None:
        layer = random_layer(np.random.default_rng(seed), w, weight)
        return _run_layer(layer, instance, functions, at)

    return Case(f"{w} {candidate} {schedule}", kernels, check)


def _legal(
    rng: np.random.Generator, w: ConvWorkload, weight: NDArray[np.float32], isa: str
) -> tuple[Candidate, int, Schedule]:
    found = candidates(weight, w.groups)
    candidate = found[rng.integers(len(found))]
    legal = list(schedules(w, candidate, ISAS[isa], l2_kib=int(rng.choice(L2_KIB))))
    max_group, _, schedule = legal[rng.integers(len(legal))]
    return candidate, max_group, _with_large_layers_choices(rng, w, schedule)


def _with_large_layers_choices(rng: np.random.Generator, w: ConvWorkload, schedule: Schedule) -> Schedule:
    """Sometimes with what only larger layers than these are offered: channels in parts, prefetch."""
    if isinstance(schedule, PixelSchedule) and rng.random() < 0.3:
        schedule = replace(schedule, filters_inside=True, channels=int(rng.integers(1, w.in_channels + 1)))
    if isinstance(schedule, PixelSchedule) and rng.random() < 0.2:
        schedule = replace(schedule, prefetch=not pixel_layout(w, schedule).identity)
    return schedule


def _run_layer(layer: Layer, instance: Instance, functions: Functions, at: At) -> str | None:
    w = layer.workload
    matrix = isinstance(instance.kernel, ChannelKernel)
    data = Guarded(layer.data.reshape(w.batch, -1) if matrix else layer.data, at, writable=False)
    buffers = [data]
    if instance.pack:
        packed = Guarded(_nothing(w.batch, instance.pack.layout.size), at, writable=True)
        functions[1](data.array, packed.array)
        buffers = [packed]
    buffers += [Guarded(constant, at, writable=False) for constant in instance.constants]
    shape = layer.expected.shape[:2] if matrix else layer.expected.shape
    if w.epilogue.bias:
        buffers.append(Guarded(layer.bias, at, writable=False))
    if w.epilogue.residual:
        buffers.append(Guarded(layer.residual.reshape(shape), at, writable=False))
    output = Guarded(_nothing(*shape), at, writable=True)
    functions[0](*(buffer.array for buffer in buffers), output.array)
    if not all(buffer.intact for buffer in (*buffers, output)):
        return "wrote behind the end of a buffer"
    wrong = error(layer, output.array)
    return None if wrong <= TOLERANCE else f"error {wrong}"


def _pack(rng: np.random.Generator, isa: str) -> Case:
    while True:
        w = random_convolution(rng)
        if is_single_pixel(w):
            continue
        _, _, schedule = _legal(rng, w, random_weight(w, rng), isa)
        layout = pixel_layout(w, schedule)
        if not layout.identity:
            break
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(np.float32)

    def check(functions: Functions, at: At) -> str | None:
        source = Guarded(data, at, writable=False)
        packed = Guarded(_nothing(w.batch, layout.size), at, writable=True)
        functions[0](source.array, packed.array)
        if not packed.intact:
            return "wrote behind the end of a buffer"
        return None if np.array_equal(packed.array, packed_planes(layout, data)) else "wrong elements"

    return Case(f"{layout} {schedule.lanes} lanes", (PackKernel(layout, schedule.lanes),), check)


def packed_planes(layout: PlaneLayout, data: NDArray[np.float32]) -> NDArray[np.float32]:
    """The padded input's elements [(y + first) * sh + p][x * sw + q] at [y * pitch + x] of each plane, else zeros.

    `first` is the first output row of the plane's block.
    """
    w = layout.workload
    packed = np.zeros((w.batch, layout.size), np.float32)
    columns = np.arange(layout.pitch)
    for block, channel in np.ndindex(layout.blocks, w.in_channels):
        first = min(block * layout.block, w.out_height - layout.block)
        for index, (p, q) in enumerate(layout.phases):
            plane = layout.lead + block * layout.block_size + channel * layout.channel + index * layout.plane
            x = columns * w.stride[1] + q - w.padding[1]
            inside = (x >= 0) & (x < w.width)
            for row in range(layout.rows):
                y = (first + row) * w.stride[0] + p - w.padding[0]
                if 0 <= y < w.height:
                    packed[:, plane + row * layout.pitch + columns[inside]] = data[:, channel, y, x[inside]]
    return packed


def _winograd(rng: np.random.Generator, isa: str) -> Case:
    """With gaps of NaN between rows, planes and images: nothing in them may count, and nothing be written."""
    w = _winograd_workload(rng)
    legal = list(winograd_schedules(w, ISAS[isa]))
    schedule = legal[rng.integers(len(legal))]
    top, left, bottom, right = w.padding
    padded = (w.in_channels, top + w.height + bottom, left + w.width + right)
    source, target = _spaced(rng, *padded), _spaced(rng, w.out_channels, w.out_height, w.out_width)
    inner = replace(source, origin=source.origin + top * source.row + left)
    kernel = WinogradKernel(w, schedule, ISAS[isa], inner, target)
    weight = rng.standard_normal(w.weight_shape).astype(np.float32)
    seed = int(rng.integers(1 << 32))

    def check(functions: Functions, at: At) -> str | None:
        layer = random_layer(np.random.default_rng(seed), w, weight)
        data = np.pad(layer.data, ((0, 0), (0, 0), (top, bottom), (left, right)))
        buffers = [Guarded(placed(source, data), at, writable=False)]
        buffers.append(Guarded(pack_weight(kernel.grid, weight), at, writable=False))
        if w.epilogue.bias:
            buffers.append(Guarded(layer.bias, at, writable=False))
        if w.epilogue.residual:
            buffers.append(Guarded(placed(target, layer.residual), at, writable=False))
        output = Guarded(_nothing(w.batch, target.size), at, writable=True)
        functions[0](*(buffer.array for buffer in buffers), output.array)
        if not output.intact:
            return "wrote behind the end of the output"
        found = _elements(target, output.array, *layer.expected.shape[1:])
        wrong = error(layer, found)
        if wrong > TOLERANCE:
            return f"error {wrong}"
        same = np.array_equal(placed(target, found), output.array, equal_nan=True)
        return None if same else "wrote between the outputs"

    return Case(f"{w} {schedule} {inner} {target}", (kernel,), check)


def _winograd_workload(rng: np.random.Generator) -> ConvWorkload:
    wide = rng.random() < 0.1
    padding = (1,) * 4 if rng.random() < 0.5 else tuple(int(p) for p in rng.integers(0, 4, 4))
    return ConvWorkload(
        batch=int(rng.choice([1, 1, 1, 2, 9])),
        in_channels=int(rng.integers(1, 20)),
        height=int(rng.integers(3, 6 if wide else 24)),
        width=int(rng.integers(3, 200 if wide else 36)),
        out_channels=int(rng.integers(1, 24)),
        kernel=(3, 3),
        padding=padding,
        epilogue=random_epilogue(rng),
    )


def _spaced(rng: np.random.Generator, channels: int, height: int, width: int) -> View:
    """An image with random gaps, which ends with its last element."""
    gaps = [int(gap) for gap in rng.integers(0, 6, 3)]
    row = width + gaps[0]
    channel = height * row + gaps[1]
    return View(gaps[2], channel, row, gaps[2] + (channels - 1) * channel + (height - 1) * row + width)


def _elements(view: View, images: NDArray[np.float32], *shape: int) -> NDArray[np.float32]:
    """[batch, channels, height, width] out of [batch, view.size]."""
    return images[:, _places(view, *shape)]


def _places(view: View, channels: int, height: int, width: int) -> NDArray[np.int64]:
    c, y, x = np.ogrid[:channels, :height, :width]
    return view.origin + c * view.channel + y * view.row + x


def placed(view: View, data: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of `_elements`; NaN elsewhere."""
    images = _nothing(len(data), view.size)
    images[:, _places(view, *data.shape[1:])] = data
    return images


def _nothing(*shape: int) -> NDArray[np.float32]:
    """NaN, so that nothing unwritten passes."""
    return np.full(shape, np.nan, np.float32)


TEMPLATES: dict[str, Callable[[np.random.Generator, str], Case]] = {
    "pixels": _pixels,
    "channels": _channels,
    "pack": _pack,
    "winograd": _winograd,
}

RARE = {"winograd": 20}
"""Templates whose kernels take this many times as long to compile as others: so many fewer are checked."""


def kernel_name(number: int, index: int) -> str:
    """Name of a kernel of a workload in the library."""
    return f"kernel_{number}_{index}"


def compiled(cases: Mapping[int, Case], target: Any) -> Any:
    """The kernels of numbered workloads as one module of TVM."""
    functions = {}
    for number, case in cases.items():
        for index, kernel in enumerate(case.kernels):
            name = kernel_name(number, index)
            functions[name] = kernel.build().with_attr("global_symbol", name)
    return compile_module(tvm.IRModule(functions), target)


def failures(template: str, isa: str, numbers: Sequence[int], target: Any) -> Iterator[tuple[int, str]]:
    """(number, what is wrong) of workloads that fail. Prints each before it runs, in case it ends the process."""
    for first in range(0, len(numbers), BATCH):
        cases = {number: draw(template, isa, number) for number in numbers[first : first + BATCH]}
        print(f"compiling {template} {isa} {min(cases)} to {max(cases)}", flush=True)
        library = compiled(cases, target)
        for number, case in cases.items():
            print(f"running {template} {isa} {number}: {case.text}", flush=True)
            functions = [library[kernel_name(number, index)] for index in range(len(case.kernels))]
            for at in ("start", "end"):
                if problem := case.check(functions, at):
                    yield number, f"{problem}, buffers at the {at} of their pages: {case.text}"
                    break
