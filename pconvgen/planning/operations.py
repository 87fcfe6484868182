"""What generated kernels compute, each with the layouts that it can read and write and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from pconvgen.matching.norms import Norm
from pconvgen.matching.pointwise import Pointwise
from pconvgen.matching.pools import Pool
from pconvgen.planning.choose import Layer, LayerPlan, fastest, options
from pconvgen.planning.tensors import Home
from pconvgen.schedules.roofline import plane_cycles, store_cycles, zeros_cycles
from pconvgen.templates.instance import Instance
from pconvgen.templates.layout.proposals import layouts
from pconvgen.templates.operators.normalise import NormKernel
from pconvgen.templates.operators.pointwise import PointwiseKernel
from pconvgen.templates.operators.pool import GlobalPoolKernel
from pconvgen.tvm_compat.relax import constant, op, shape_of
from pconvgen.values.dtype import DType
from pconvgen.values.planes import Places, PlaneLayout, plain_layout
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.target import Target

CONTENDER = 1.4
"""Encodings are compared in every layout if in one they take at most so many times the cycles of the fastest."""


class Plans(Protocol):
    """What a layer asks for when it is planned; see `NetworkPlans` (planning/plans.py)."""

    def plan(self, layer: Layer, places: Places | None = None, **where: Any) -> LayerPlan:
        """The encoding and schedule of a layer; see `plan_layer`."""

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""


class Tensors(Protocol):
    """What an operation asks for when its kernel is called; see `passes/lower.py`."""

    def read(self, home: Home | None, data: Any, packed: PlaneLayout | None, dtype: str) -> Any:
        """The expression of a tensor that a kernel reads in a layout and a format."""

    def number(self, expr: Any, shape: tuple[int, ...]) -> Any:
        """A small tensor of other operators, such as a number for each channel, in another shape."""

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""

    def write(self, home: Home, kernel: Any, args: list[Any]) -> None:
        """Calls a kernel that writes a tensor to its home."""

    def result(self, kernel: Any, args: list[Any], shape: tuple[int, ...]) -> Any:
        """Calls a kernel that makes a tensor of its own."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A layer with the `pixels` template.

    Attributes
    ----------
    layer: the layer.
    target: what code is generated for.
    reads: homes of the data and, if one is added, of the residual; None for tensors of other operators, and for data
        that is packed because it is in another format.
    writes: home of the result.
    """

    layer: Layer
    target: Target
    reads: tuple[Home | None, ...]
    writes: Home

    @property
    def result(self) -> Any:
        """The variable that the kernel computes."""
        return self.layer.site.result

    @cached_property
    def _layer(self) -> Layer:
        home = self.reads[0]
        return self.layer if home is None or home.first is not None else self.layer.scattered()

    @cached_property
    def _contenders(self) -> Layer:
        """The layer with the encodings that are fastest in some layout: the others will not be in another one."""
        w = self.layer.site.workload
        plain = plain_layout(w.out_channels, w.out_height, w.out_width)
        places = self._places([next(iter(self.proposals())), plain], plain)
        ranking, parted = options(self._layer, self.target, places)
        limit = CONTENDER * ranking[0].cycles
        close = [choice.candidate for choice in ranking if choice.cycles < limit]
        return replace(
            self._layer,
            candidates=tuple(candidate for candidate in self._layer.candidates if candidate in close),
            splits=tuple(choice.split for choice in parted[:1] if choice.cycles < limit),
        )

    @property
    def batch(self) -> int:
        """Images that are computed."""
        return self.layer.site.workload.batch

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of the input."""
        return layouts(self.layer.site.workload, self.target.core.isa)

    def can_read(self, number: int, source: PlaneLayout) -> bool:
        """Whether the data (0) or the residual (1) may lie so."""
        return source.readable(self.layer.site.workload) if number == 0 else source.main is not None

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Of the fastest encoding."""
        if target is None or not target.writable or not all(map(self.can_read, range(len(sources)), sources)):
            return math.inf
        places = self._places(sources, target)
        # All that the cost of a kernel knows of where its output lies: see Priced, and Places for `seamless`.
        costs, to_rows = self.target.core.costs, replace(places, residual=None).seamless
        key = places.source, places.seamless, to_rows, store_cycles(target, costs), zeros_cycles(target, costs)
        if key not in self._known:
            self._known[key] = fastest(*options(self._contenders, self.target, places)).cycles
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[PlaneLayout, bool, bool, float, float], float]:
        """Cycles that were asked for."""
        return {}

    def _places(self, sources: Sequence[PlaneLayout], target: PlaneLayout) -> Places:
        w, residual = self.layer.site.workload, None
        if w.epilogue.residual:
            residual = sources[1] if sources[1:] else plain_layout(w.out_channels, w.out_height, w.out_width)
        return Places(sources[0], target, residual)

    def plan(self, source: PlaneLayout, tensors: Plans) -> LayerPlan:
        """The layer's kernel for the layouts that were chosen."""
        data, residual = self.reads[0], self.reads[1] if self.reads[1:] else None
        sources = [source, *([tensors.layout(residual)] if residual else [])]
        first = (_first(self.writes), _first(residual))
        places = self._places(sources, tensors.layout(self.writes))
        slots = data.slots if data is not None and source == tensors.layout(data) else None
        layer = replace(self._layer, splits=self._contenders.splits)
        return tensors.plan(layer, places, slots=slots, first=first)

    def emit(self, plan: LayerPlan, source: PlaneLayout, tensors: Tensors) -> None:
        """Calls the kernels."""
        w, sums = self.layer.site.workload, None
        *before, last = plan.instances
        for instance in before:
            args = self._args(instance, source, sums, tensors)
            sums = tensors.result(instance.kernel, args, (w.batch, w.out_channels, w.out_height, w.out_width))
        tensors.write(self.writes, last.kernel, self._args(last, source, sums, tensors))

    def _args(self, instance: Instance, source: PlaneLayout, sums: Any, tensors: Tensors) -> list[Any]:
        """What a kernel reads; `sums` is the result of the one before it, None for the first."""
        site, epilogue, formats = self.layer.site, instance.kernel.workload.epilogue, self.layer.site.workload.precision
        args = [tensors.read(self.reads[0], site.data, source, formats.arithmetic)]
        args += map(constant, instance.constants)
        if epilogue.bias and site.bias is not None:
            args.append(constant(site.bias.astype(formats.arithmetic)))
        if epilogue.residual:
            args.append(tensors.read(self.reads[1], site.residual, None, formats.activations) if sums is None else sums)
        return args


@dataclass(frozen=True, eq=False)
class Pooling:
    """Pooling of windows or of whole planes.

    Attributes
    ----------
    pool: the pooling.
    result: the variable that the kernel computes.
    target: what code is generated for.
    reads: home of the data; None for a tensor of another operator, which is read as it is.
    writes: home of the result; None for whole planes, whose means or maxima are plain float32 numbers.
    precision: of the network.
    """

    pool: Pool
    result: Any
    target: Target
    reads: tuple[Home | None]
    writes: Home | None
    precision: Precision = FLOAT32

    @property
    def batch(self) -> int:
        """Images that are computed."""
        return self.pool.shape[0]

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of the input."""
        return _rows(self.pool.data, self.reads[0], self._lanes)

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Of storing the results, as everything else does not depend on layouts."""
        if not self.can_read(0, sources[0]) or (target is not None and not target.writable):
            return math.inf
        if target is None:
            return 0.0
        n, c, *_ = self.pool.shape
        return n * c * plane_cycles(target, self._lanes, self.target.core.costs)

    def can_read(self, _number: int, source: PlaneLayout) -> bool:
        """Whether the data may lie so."""
        if self.pool.whole:
            return GlobalPoolKernel.readable(self.pool.kind, source)
        return source.main is not None

    @property
    def _lanes(self) -> int:
        return self.target.core.lanes(self.pool.computed(self.precision))

    def emit(self, source: PlaneLayout, tensors: Tensors) -> Any:
        """Calls the kernel; the tensor that it makes, where it has no home."""
        home = self.reads[0]
        data = tensors.read(home, self.pool.data, source, self.precision.activations)
        args = [data, *map(constant, self.pool.scales())]
        home = home if home is not None and source == tensors.layout(home) else None
        slot = _first(home)
        if self.writes is None:
            n, c, *_ = shape_of(self.pool.data) or ()
            kernel = self.pool.plane_kernel(source, slot, self._lanes, self.precision)
            return op.reshape(tensors.result(kernel, args, (n * c,)), self.pool.shape)
        slots = (slot, _first(self.writes))
        kernel = self.pool.window_kernel(source, tensors.layout(self.writes), slots, self._lanes, self.precision)
        tensors.write(self.writes, kernel, args)
        return None


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Arithmetic on activations.

    Attributes
    ----------
    chain: what is computed.
    target: what code is generated for.
    reads: homes of the data and, if there is one, of the tensor that is added; None for tensors of other operators.
    writes: home of the result.
    precision: of the network.
    """

    chain: Pointwise
    target: Target
    reads: tuple[Home | None, ...]
    writes: Home
    precision: Precision = FLOAT32

    @property
    def result(self) -> Any:
        """The variable that the kernel computes."""
        return self.chain.result

    @property
    def batch(self) -> int:
        """Images that are computed."""
        return (shape_of(self.chain.data) or ())[0]

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of the data: rows as they are."""
        return _rows(self.chain.data, self.reads[0], self._lanes)

    def can_read(self, _number: int, source: PlaneLayout) -> bool:
        """Whether the data or what is added may lie so."""
        return source.main is not None

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Of storing the results."""
        if target is None or not target.writable or not all(map(self.can_read, range(len(sources)), sources)):
            return math.inf
        n, c, *_ = shape_of(self.chain.result) or ()
        return n * c * plane_cycles(target, self._lanes, self.target.core.costs)

    @property
    def _computed(self) -> DType:
        """The format of the arithmetic: factors and addends of channels may be too large for float16."""
        chain = self.chain
        return self.precision.arithmetic if chain.scale is None and chain.shift is None else DType.FLOAT32

    @property
    def _lanes(self) -> int:
        return self.target.core.lanes(self._computed)

    def emit(self, source: PlaneLayout, tensors: Tensors) -> None:
        """Calls the kernel."""
        chain, plain = self.chain, plain_layout(*(shape_of(self.chain.data) or ())[1:])
        n, c, *_ = shape_of(chain.data) or ()
        home, other = self.reads[0], self.reads[1] if self.reads[1:] else None
        args = [tensors.read(home, chain.data, source, self.precision.activations)]
        rows = 0
        if chain.scale is not None:
            rows = (shape_of(chain.scale) or ())[0]
            args.append(tensors.number(chain.scale, (rows, c)))
        if chain.shift is not None:
            args.append(tensors.number(chain.shift, (c,)))
        if chain.other is not None:
            args.append(tensors.read(other, chain.other, None, self.precision.activations))
        added = None if chain.other is None else plain if other is None else tensors.layout(other)
        in_place = home is not None and source == tensors.layout(home)
        slots = (_first(home) if in_place else 0, _first(other), _first(self.writes))
        kernel = PointwiseKernel(
            batch=n,
            channels=c,
            source=source,
            other=added,
            target=tensors.layout(self.writes),
            slots=slots,
            scale=rows,
            shift=chain.shift is not None,
            activation=chain.activation,
            lanes=self._lanes,
            dtype=self.precision.activations,
            computed=self._computed,
        )
        tensors.write(self.writes, kernel, args)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Normalisation of images; sums are float32.

    Attributes
    ----------
    norm: what is computed.
    target: what code is generated for.
    reads: home of the data; None for a tensor of another operator, which is read as it is.
    writes: home of the result.
    precision: of the network.
    """

    norm: Norm
    target: Target
    reads: tuple[Home | None]
    writes: Home
    precision: Precision = FLOAT32

    @property
    def result(self) -> Any:
        """The variable that the kernel computes."""
        return self.norm.result

    @property
    def batch(self) -> int:
        """Images that are computed."""
        return (shape_of(self.norm.data) or ())[0]

    def proposals(self) -> Iterable[PlaneLayout]:
        """Layouts of the data: rows as they are."""
        return _rows(self.norm.data, self.reads[0], self._lanes)

    def can_read(self, _number: int, source: PlaneLayout) -> bool:
        """Whether the data may lie so."""
        return source.main is not None

    def cycles(self, sources: Sequence[PlaneLayout], target: PlaneLayout | None) -> float:
        """Of storing the results."""
        if target is None or not target.writable or not self.can_read(0, sources[0]):
            return math.inf
        n, c, *_ = shape_of(self.norm.data) or ()
        return n * c * plane_cycles(target, self._lanes, self.target.core.costs)

    @property
    def _lanes(self) -> int:
        return self.target.core.lanes(DType.FLOAT32)

    def emit(self, source: PlaneLayout, tensors: Tensors) -> None:
        """Calls the kernel."""
        norm, home = self.norm, self.reads[0]
        n, c, *_ = shape_of(norm.data) or ()
        in_place = home is not None and source == tensors.layout(home)
        kernel = NormKernel(
            batch=n,
            channels=c,
            groups=norm.groups,
            joint=norm.joint,
            source=source,
            target=tensors.layout(self.writes),
            slots=(_first(home) if in_place else 0, _first(self.writes)),
            elements=False,
            epsilon=norm.epsilon,
            activation=norm.activation,
            lanes=self._lanes,
            dtype=self.precision.activations,
        )
        data = tensors.read(home, norm.data, source, self.precision.activations)
        tensors.write(self.writes, kernel, [data, *(tensors.number(e, (c, 1)) for e in (norm.scale, norm.shift))])


def _rows(data: Any, home: Home | None, lanes: int) -> list[PlaneLayout]:
    """Layouts of a tensor for readers of rows as they are; without a home it is NCHW and stays so."""
    _, *size = shape_of(data) or ()
    plain = plain_layout(*size)
    return [plain] if home is None else [plain, replace(plain, slack=2 * lanes)]


def _first(home: Home | None) -> int:
    return 0 if home is None else home.first or 0


Operation = Convolution | Pooling | Elementwise | Normalisation
