"""Paddings and output sizes that an operator with a window leaves to whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pconvgen.errors import UnsupportedError
from pconvgen.tvm_compat.relax import Expr, shape_of


def explicit_padding(inputs: Sequence[Expr], attrs: dict[str, Any]) -> None:
    """Replace auto_pad of a convolution by pads."""
    _resolve(attrs, (shape_of(inputs[0]) or ())[2:], (shape_of(inputs[1]) or ())[2:])


def explicit_pool(inputs: Sequence[Expr], attrs: dict[str, Any]) -> None:
    """Replace auto_pad of a pooling by pads.

    Raises UnsupportedError where onnxruntime differs from ONNX: it pads as if windows had no dilation, and cuts off
    what lies between windows.
    """
    sizes, kernel = (shape_of(inputs[0]) or ())[2:], attrs["kernel_shape"]
    if attrs.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        ones = [1] * len(kernel)
        rows = zip(sizes, kernel, attrs.get("strides", ones), attrs.get("dilations", ones), strict=True)
        for size, taps, stride, rate in rows:
            if taps > 1 and rate > 1:
                raise UnsupportedError("auto_pad of a dilated pooling; give pads")
            if (size - 1) // stride * stride + taps + 1 < size:
                raise UnsupportedError("auto_pad of a pooling whose windows leave much out; give pads")
    _resolve(attrs, sizes, kernel)


def _resolve(attrs: dict[str, Any], sizes: Sequence[int], kernel: Sequence[int]) -> None:
    mode = attrs.pop("auto_pad", b"NOTSET").decode()
    if mode == "VALID":
        attrs["pads"] = [0] * (2 * len(kernel))
    if not mode.startswith("SAME"):
        return
    strides = attrs.get("strides", [1] * len(kernel))
    dilations = attrs.get("dilations", [1] * len(kernel))
    before, after = [], []
    for size, taps, stride, rate in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * rate + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attrs["pads"] = before + after


def explicit_output(inputs: Sequence[Expr], attrs: dict[str, Any]) -> None:
    """Replace auto_pad and output_shape of a transposed convolution by pads and output_padding.

    Raises UnsupportedError where ONNX and onnxruntime differ: for the latter there is nothing between the windows.
    """
    mode = attrs.pop("auto_pad", b"NOTSET").decode()
    sizes, kernel = (shape_of(inputs[0]) or ())[2:], (shape_of(inputs[1]) or ())[2:]
    strides = attrs.get("strides", [1] * len(kernel))
    dilations = attrs.get("dilations", [1] * len(kernel))
    behind = list(attrs.get("output_padding", [0] * len(kernel)))
    wanted = attrs.pop("output_shape", None)
    given = wanted is not None
    if not given and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        if mode == "VALID":
            attrs["pads"] = [0] * (2 * len(kernel))
        return
    before, after = [], []
    rows = zip(sizes, kernel, strides, dilations, list(wanted)[-len(kernel) :], strict=True)
    for axis, (size, taps, stride, rate, output) in enumerate(rows):
        surplus = (size - 1) * stride + (taps - 1) * rate + 1 + behind[axis] - output
        if surplus < 0 and not given:
            raise UnsupportedError("auto_pad where outputs lie between the windows; give pads and output_padding")
        behind[axis] += max(-surplus, 0)
        small, large = max(surplus, 0) // 2, -(-max(surplus, 0) // 2)
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attrs["pads"], attrs["output_padding"] = before + after, behind
