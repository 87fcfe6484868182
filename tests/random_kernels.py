"""Numbered random kernels of every template: drawn, compiled many at a time, run between inaccessible pages.

A number stands for a shape, an epilogue, a weight's structure, and one of its legal schedules, not the best one: any
that is offered must be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import tvm
from numpy.typing import NDArray

from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES, candidates, encode
from pconvgen.templates.family import FAMILIES, Family, instantiate
from pconvgen.templates.instance import Instance
from pconvgen.templates.layout.proposals import layouts
from pconvgen.templates.layout.store import tensor_shape
from pconvgen.templates.movement.pack import PackKernel
from pconvgen.templates.pixels.kernel import PixelKernel, block_tiles
from pconvgen.tvm_compat.building import compile_module
from pconvgen.values.core import Core
from pconvgen.values.dtype import DType
from pconvgen.values.planes import Places, PlaneLayout, plain_layout
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.schedule import PixelSchedule
from pconvgen.values.workload import ConvWorkload
from tests.guarded import Guarded
from tests.layers import (
    Layer,
    error,
    random_convolution,
    random_epilogue,
    random_layer,
    random_linear,
    random_weight,
    tolerance,
)
from tests.planes import elements, from_planes, in_planes, nothing, visible
from tests.random_movers import MOVERS, Mover, check_mover
from tests.spaces import schedules

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


def draw(template: str, core: str, number: int, formats: Precision = FLOAT32) -> Case:
    """The workload of that number, for a core by its name."""
    rng = np.random.default_rng([*f"{template} {core}".encode(), number])
    return TEMPLATES[template](rng, replace(CORES[core], l2_kib=int(rng.choice(L2_KIB))), formats)


def _kernel(family: Family, rng: np.random.Generator, core: Core, formats: Precision) -> Case:
    """Any schedule of a family for any of a weight's encodings, not only what is fastest."""
    while True:
        w = replace(WORKLOADS.get(family.name, random_convolution)(rng), precision=formats)
        case = _attempt(family, rng, core, w) if family.applies(w) else None
        if case is not None:
            return case


def _attempt(family: Family, rng: np.random.Generator, core: Core, w: ConvWorkload) -> Case | None:
    """A random case of a workload; None where the layouts that were drawn allow none, or it takes long to compile."""
    weight = _stored(w, random_weight(w, rng))
    found = [candidate for candidate in candidates(weight, w.groups) if any(family.encodings(w, candidate, core))]
    candidate = found[rng.integers(len(found))]
    scattered = family.scattered and not STRUCTURES[candidate.structure].spans_channels
    at = None if w.is_product else _places(rng, w, core, scattered=scattered)
    places, slots, first = at or (None, None, (0, 0))
    legal = list(schedules(w, candidate, core, places, [family]))
    if not legal:
        return None
    max_group, _, schedule = legal[rng.integers(len(legal))]
    if isinstance(schedule, PixelSchedule):
        schedule = _with_large_layers_choices(rng, w, schedule)
    encoding = encode(weight, candidate, w.groups, max_group)
    instance = instantiate(w, encoding, schedule, core.isa, places, slots=slots, first=first)
    large = isinstance(instance.kernel, PixelKernel) and _unrolled(instance.kernel) > LARGE
    if large and rng.random() >= LARGE_SHARE:
        return None
    seed, text = int(rng.integers(1 << 32)), f"{w} {candidate} {schedule} {places}"
    if at is not None:
        return _checked(w, weight, instance, *at, seed, text, spreads=not family.direct)

    drawn = cache(lambda: random_layer(np.random.default_rng(seed), w, weight))

    def check(functions: Functions, at: At) -> str | None:
        return _run_product(drawn(), instance, functions, at)

    return Case(text, (instance.kernel,), check)


def _unrolled(kernel: PixelKernel) -> int:
    """FMAs in the code of a kernel."""
    bodies = len(kernel.bodies) * len(kernel.bodies[0]) * kernel.group
    return sum(
        bodies * len(run.vectors) for run in block_tiles(kernel.workload, kernel.schedule, kernel.isa, kernel.source)
    )


def _stored(w: ConvWorkload, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight as the library has it: what is compared with has no error by storing it."""
    return weight.astype(w.precision.weights).astype(np.float32)


def _checked(
    w: ConvWorkload,
    weight: NDArray[np.float32],
    instance: Instance,
    places: Places,
    slots: NDArray[np.int64],
    first: tuple[int, int],
    seed: int,
    text: str,
    *,
    spreads: bool = False,
) -> Case:
    """A convolution between layouts; `slots` and `first` as in `convolution`, `spreads` as in `random_layer`."""

    drawn = cache(lambda: random_layer(np.random.default_rng(seed), w, weight, spreads=spreads))

    def check(functions: Functions, at: At) -> str | None:
        layer = drawn()
        target, residual = places.target, places.residual
        buffers = [in_planes(places.source, layer.data.astype(w.precision.arithmetic), slots)]
        buffers += instance.constants
        if w.epilogue.bias:
            buffers.append(layer.bias)
        if residual is not None:
            buffers.append(in_planes(residual, layer.residual, first[1] + np.arange(w.out_channels)))
        guarded = [Guarded(buffer, at, writable=False) for buffer in buffers]
        output = Guarded(nothing(w.precision.activations, *tensor_shape(target, w.batch)), at, writable=True)
        functions[0](*(buffer.array for buffer in guarded), output.array)
        if not all(buffer.intact for buffer in (*guarded, output)):
            return "wrote behind the end of a buffer"
        own = first[0] + np.arange(w.out_channels)
        found, wrong = from_planes(target, output.array, own)
        if wrong:
            return wrong
        others = np.setdiff1d(np.arange(target.channels), own)
        # Columns that the reader leaves out are in no plane.
        shown = elements(target, np.ones_like(output.array), others) > 0
        if not np.isnan(elements(target, output.array, others)[shown]).all():
            return "wrote into channels of others"
        shown = elements(target, np.ones_like(output.array), own) > 0
        off = error(layer, np.where(shown, found, np.where(layer.nan, np.nan, layer.expected)))
        return None if off <= tolerance(w.precision) else f"error {off}"

    return Case(f"{text} {first}", (instance.kernel,), check)


def _places(
    rng: np.random.Generator, w: ConvWorkload, core: Core, *, scattered: bool
) -> tuple[Places, NDArray[np.int64], tuple[int, int]]:
    """Layouts of a convolution's tensors, in which others may have a part; places of the input's channels, and first
    places of those of output and residual."""
    sources = layouts(w, core.isa)
    source = sources[rng.integers(len(sources))]
    slots = np.arange(w.in_channels)
    if not source.plain and rng.random() < 0.3:
        source = replace(source, channels=w.in_channels + 3)
        slots = rng.permutation(source.channels)[: w.in_channels] if scattered else slots + 2
    target, first = _somewhere(rng, w, core)
    residual, second = None, 0
    if w.epilogue.residual:
        residual, second = _somewhere(rng, w, core)
        while residual.main is None:
            residual, second = _somewhere(rng, w, core)
    return Places(source, target, residual), slots, (first, second)


def _somewhere(rng: np.random.Generator, w: ConvWorkload, core: Core) -> tuple[PlaneLayout, int]:
    """A writable layout of the output, as some reader wants it, with the first place of its channels."""
    if rng.random() < 0.2:
        return plain_layout(w.out_channels, w.out_height, w.out_width), 0
    while True:
        reader = random_convolution(rng)
        reader = replace(
            reader, in_channels=w.out_channels, out_channels=1, groups=1, height=w.out_height, width=w.out_width
        )
        if reader.out_height < 1 or reader.out_width < 1:
            continue
        found = [layout for layout in layouts(reader, core.isa) if layout.writable]
        if not found:
            continue
        layout = found[rng.integers(len(found))]
        more = int(rng.integers(3))
        return replace(layout, channels=w.out_channels + more), int(rng.integers(more + 1))


def _winograd_workload(rng: np.random.Generator) -> ConvWorkload:
    wide = rng.random() < 0.1
    padding = (1,) * 4 if rng.random() < 0.5 else tuple(int(p) for p in rng.integers(0, 4, 4))
    return ConvWorkload(
        batch=int(rng.choice([1, 1, 1, 2, 9])),
        in_channels=int(rng.integers(1, 20)),
        height=int(rng.integers(3, 6 if wide else 24)),
        width=int(rng.integers(3, 600 if wide else 36)),
        out_channels=int(rng.integers(1, 24)),
        kernel=(3, 3),
        padding=padding,
        epilogue=random_epilogue(rng),
    )


def _with_large_layers_choices(rng: np.random.Generator, w: ConvWorkload, schedule: PixelSchedule) -> PixelSchedule:
    """Sometimes with what only larger layers than these are offered: channels in parts, prefetch."""
    if rng.random() < 0.3:
        schedule = replace(schedule, filters_inside=True, channels=int(rng.integers(1, w.in_channels + 1)))
    if rng.random() < 0.2:
        schedule = replace(schedule, prefetch=True)
    return schedule


def _run_product(layer: Layer, instance: Instance, functions: Functions, at: At) -> str | None:
    w = layer.workload
    shape = layer.expected.shape[:2]
    buffers = [Guarded(layer.data.reshape(w.batch, -1), at, writable=False)]
    buffers += [Guarded(constant, at, writable=False) for constant in instance.constants]
    if w.epilogue.bias:
        buffers.append(Guarded(layer.bias, at, writable=False))
    if w.epilogue.residual:
        buffers.append(Guarded(layer.residual.reshape(shape), at, writable=False))
    output = Guarded(nothing(w.precision.activations, *shape), at, writable=True)
    functions[0](*(buffer.array for buffer in buffers), output.array)
    if not all(buffer.intact for buffer in (*buffers, output)):
        return "wrote behind the end of a buffer"
    wrong = error(layer, output.array)
    return None if wrong <= tolerance(w.precision) else f"error {wrong}"


def _pack(rng: np.random.Generator, core: Core, formats: Precision) -> Case:
    while True:
        w = random_convolution(rng)
        if not w.is_product:
            break
    sources = layouts(w, core.isa)
    target = sources[rng.integers(len(sources))]
    source = plain_layout(w.in_channels, w.height, w.width)
    first = (0, 0)
    if rng.random() < 0.3:
        made = replace(w, out_channels=w.in_channels, stride=(1, 1), kernel=(1, 1), padding=(0,) * 4, dilation=(1, 1))
        source, slot = _somewhere(rng, made, core)
        target = replace(target, channels=w.in_channels + 2)
        first = (slot, 1)
        if source.main is None:
            return _pack(rng, core, formats)
    lanes = int(rng.choice(core.isa.lanes(formats.arithmetic)))
    data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(formats.activations)

    def check(functions: Functions, at: At) -> str | None:
        buffer = Guarded(in_planes(source, data, first[0] + np.arange(w.in_channels)), at, writable=False)
        packed = Guarded(nothing(formats.arithmetic, *tensor_shape(target, w.batch)), at, writable=True)
        functions[0](buffer.array, packed.array)
        if not packed.intact:
            return "wrote behind the end of a buffer"
        found, wrong = from_planes(target, packed.array, first[1] + np.arange(w.in_channels))
        return wrong or (None if np.array_equal(found, visible(target, data)) else "wrong elements")

    before_after = (formats.activations, formats.arithmetic)
    kernel = PackKernel(w.batch, source, target, w.in_channels, first, lanes, before_after)
    return Case(f"{source} -> {target} {lanes} lanes", (kernel,), check)


def _mover(
    make: Callable[[np.random.Generator, int], Mover], rng: np.random.Generator, core: Core, _formats: Precision
) -> Case:
    kernel, inputs, expected = make(rng, core.lanes(DType.FLOAT32))
    return Case(
        str(kernel),
        (kernel,),
        lambda functions, at: check_mover(inputs, expected, functions[0], at),
    )


WORKLOADS: dict[str, Callable[[np.random.Generator], ConvWorkload]] = {
    "channels": random_linear,
    "winograd": _winograd_workload,
}
"""Where most convolutions are not what a family computes: those that are."""

TEMPLATES: dict[str, Callable[[np.random.Generator, Core, Precision], Case]] = {
    **{name: partial(_kernel, family) for name, family in FAMILIES.items()},
    "pack": _pack,
    **{name: partial(_mover, make) for name, make in MOVERS.items()},
}

HALF = ("pixels", "channels", "pack")
"""Templates that `draw` makes in other formats than float32, too."""

RARE = {"winograd": 20, **dict.fromkeys(MOVERS, 10)}
"""Templates whose kernels take long to compile, or depend on a few numbers: so many times fewer are checked."""


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


def failures(
    template: str, core: str, numbers: Sequence[int], target: Any, formats: Precision = FLOAT32
) -> Iterator[tuple[int, str]]:
    """(number, what is wrong) of workloads that fail. Prints each before it runs, in case it ends the process."""
    for first in range(0, len(numbers), BATCH):
        cases = {number: draw(template, core, number, formats) for number in numbers[first : first + BATCH]}
        print(f"compiling {template} {core} {min(cases)} to {max(cases)}", flush=True)
        library = compiled(cases, target)
        for number, case in cases.items():
            print(f"running {template} {core} {number}: {case.text}", flush=True)
            functions = [library[kernel_name(number, index)] for index in range(len(case.kernels))]
            for at in ("start", "end"):
                if problem := case.check(functions, at):
                    yield number, f"{problem}, buffers at the {at} of their pages: {case.text}"
                    break
