"""What generated kernels compute, each with the layouts that it can read and write and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pconvgen.matching.norms import Norm
from pconvgen.matching.pointwise import Pointwise
from pconvgen.matching.pools import Pool
from pconvgen.planning.convolution import Convolution
from pconvgen.planning.requests import TensorAccess, first_place
from pconvgen.planning.tensors import Home
from pconvgen.schedules.roofline import plane_cycles
from pconvgen.templates.operators.global_pool import GlobalPoolKernel
from pconvgen.templates.operators.normalise import NormKernel
from pconvgen.templates.operators.pointwise import PointwiseKernel
from pconvgen.tvm_compat.relax import Expr, Var, constant, op, shape_of
from pconvgen.values.dtype import DType
from pconvgen.values.planes import PlaneLayout, plain_layout
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.target import Target


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
    result: Var
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

    def emit(self, source: PlaneLayout, tensors: TensorAccess) -> Expr:
        """Calls the kernel; the tensor that it makes, where it has no home."""
        home = self.reads[0]
        data = tensors.read(home, self.pool.data, source, self.precision.activations)
        args = [data, *map(constant, self.pool.scales())]
        home = home if home is not None and source == tensors.layout(home) else None
        slot = first_place(home)
        if self.writes is None:
            n, c, *_ = shape_of(self.pool.data) or ()
            planes = self.pool.plane_kernel(source, slot, self._lanes, self.precision)
            return op.reshape(tensors.result(planes, args, (n * c,)), self.pool.shape)
        slots = (slot, first_place(self.writes))
        windows = self.pool.window_kernel(source, tensors.layout(self.writes), slots, self._lanes, self.precision)
        tensors.write(self.writes, windows, args)
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
    def result(self) -> Var:
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

    def emit(self, source: PlaneLayout, tensors: TensorAccess) -> None:
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
        slots = (first_place(home) if in_place else 0, first_place(other), first_place(self.writes))
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
    def result(self) -> Var:
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

    def emit(self, source: PlaneLayout, tensors: TensorAccess) -> None:
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
            slots=(first_place(home) if in_place else 0, first_place(self.writes)),
            elements=False,
            epsilon=norm.epsilon,
            activation=norm.activation,
            lanes=self._lanes,
            dtype=self.precision.activations,
        )
        data = tensors.read(home, norm.data, source, self.precision.activations)
        tensors.write(self.writes, kernel, [data, *(tensors.number(e, (c, 1)) for e in (norm.scale, norm.shift))])


def _rows(data: Expr, home: Home | None, lanes: int) -> list[PlaneLayout]:
    """Layouts of a tensor for readers of rows as they are; without a home it is NCHW and stays so."""
    _, *size = shape_of(data) or ()
    plain = plain_layout(*size)
    return [plain] if home is None else [plain, replace(plain, slack=2 * lanes)]


Operation = Convolution | Pooling | Elementwise | Normalisation
