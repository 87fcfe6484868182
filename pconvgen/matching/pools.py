"""Finding pooling of windows and of whole planes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pconvgen.templates.operators.global_pool import GlobalPoolKernel
from pconvgen.templates.operators.pool import PoolKernel
from pconvgen.tvm_compat.relax import Expr, dtype_of, is_op, shape_of
from pconvgen.values.dtype import DType
from pconvgen.values.planes import PlaneLayout
from pconvgen.values.precision import Precision


@dataclass(frozen=True, eq=False)
class Pool:
    """One pooling.

    Attributes
    ----------
    kind: max or avg.
    data: input expression, NCHW.
    kernel, stride, dilation: of the windows, (rows, columns).
    padding: (top, left, bottom, right).
    counts_padding: whether the padding, zeros, counts for a mean.
    shape: of the result.
    output: rows and columns of windows.
    """

    kind: str
    data: Expr
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    counts_padding: bool
    shape: tuple[int, ...]
    output: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether a window is a whole plane."""
        height, width = (shape_of(self.data) or ())[2:]
        return self.output == (1, 1) and self.kernel == (height, width) and not any(self.padding)

    def scales(self) -> list[NDArray[np.float32]]:
        """Arguments of the kernel behind the data: for means, the factors of rows and of columns."""
        return [self._scale(axis) for axis in range(2)] if self.kind == "avg" and not self.whole else []

    def computed(self, formats: Precision) -> DType:
        """The format in which windows are reduced: means are sums, which float16 would make inexact."""
        return formats.arithmetic if self.kind == "max" else DType.FLOAT32

    def window_kernel(
        self, source: PlaneLayout, target: PlaneLayout, slots: tuple[int, int], lanes: int, formats: Precision
    ) -> PoolKernel:
        """The kernel for windows, with tensors in these layouts."""
        n, c, *_ = shape_of(self.data) or ()
        return PoolKernel(
            kind=self.kind,
            batch=n,
            channels=c,
            source=source,
            target=target,
            slots=slots,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding[:2],
            lanes=lanes,
            dtype=formats.activations,
            computed=self.computed(formats),
        )

    def plane_kernel(self, source: PlaneLayout, slot: int, lanes: int, formats: Precision) -> GlobalPoolKernel:
        """The kernel for whole planes, with the input in this layout."""
        n, c, *_ = shape_of(self.data) or ()
        return GlobalPoolKernel(self.kind, n, c, source, slot, lanes, formats.activations, self.computed(formats))

    def _scale(self, axis: int) -> NDArray[np.float32]:
        """One divided by the elements that count, for each row (axis 0) or column (1) of windows."""
        size, rate, before = (shape_of(self.data) or ())[2 + axis], self.dilation[axis], self.padding[axis]
        first = np.arange(self.output[axis]) * self.stride[axis] - before
        places = first[:, None] + np.arange(self.kernel[axis]) * rate
        # Where the last window was rounded up to, it may end behind the padding too, which never counts.
        low, high = (-before, size + self.padding[2 + axis]) if self.counts_padding else (0, size)
        counted = ((places >= low) & (places < high)).sum(axis=1)
        return (1 / np.maximum(counted, 1)).astype(np.float32)


def pool_of(value: Expr) -> Pool | None:
    """The pooling that a call is; None for anything else, and for what has no template."""
    if not is_op(value, *_OPERATORS):
        return None
    shape, before = shape_of(value), shape_of(value.args[0])
    if shape is None or before is None or len(before) != 4 or dtype_of(value) != DType.FLOAT32 or not math.prod(before):
        return None
    return _OPERATORS[value.op.name](value, before, shape)


def _windows(value: Expr, before: tuple[int, ...], shape: tuple[int, ...], kind: str) -> Pool | None:
    attrs = value.attrs
    if (attrs.layout, attrs.out_layout) != ("NCHW", "NCHW"):
        return None
    kernel, stride, dilation = (_pair(sizes) for sizes in (attrs.pool_size, attrs.strides, attrs.dilation))
    top, left, bottom, right = (int(size) for size in attrs.padding)
    padding, counts = (top, left, bottom, right), bool(attrs.count_include_pad)
    return Pool(kind, value.args[0], kernel, stride, dilation, padding, counts, shape, _pair(shape[2:]))


def _adaptive(value: Expr, before: tuple[int, ...], shape: tuple[int, ...]) -> Pool | None:
    if value.attrs.layout != "NCHW" or any(old % new for old, new in zip(before, shape, strict=True)):
        return None
    window = (before[2] // shape[2], before[3] // shape[3])
    return Pool("avg", value.args[0], window, window, (1, 1), (0, 0, 0, 0), False, shape, _pair(shape[2:]))


def _planes(value: Expr, before: tuple[int, ...], shape: tuple[int, ...], kind: str) -> Pool | None:
    if sorted(int(axis) % 4 for axis in value.attrs.axis or ()) != [2, 3]:
        return None
    window = _pair(before[2:])
    return Pool(kind, value.args[0], window, window, (1, 1), (0, 0, 0, 0), False, shape, (1, 1))


def _pair(sizes: Expr) -> tuple[int, int]:
    rows, columns = (int(size) for size in sizes)
    return rows, columns


_OPERATORS: dict[str, Callable[[Expr, tuple[int, ...], tuple[int, ...]], Pool | None]] = {
    "relax.nn.max_pool2d": partial(_windows, kind="max"),
    "relax.nn.avg_pool2d": partial(_windows, kind="avg"),
    "relax.nn.adaptive_avg_pool2d": _adaptive,
    "relax.max": partial(_planes, kind="max"),
    "relax.mean": partial(_planes, kind="avg"),
}
