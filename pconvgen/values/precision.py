"""The number formats of a network: what tensors and weights are stored in, and what sums are computed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pconvgen.errors import UsageError
from pconvgen.values.dtype import DType


@dataclass(frozen=True)
class Precision:
    """The formats of a layer.

    Attributes
    ----------
    activations: of tensors in memory.
    weights: of weights in memory; kernels convert them as they are loaded.
    arithmetic: of products and sums, of biases, and of a convolution's input, which is packed for it where activations
        are in another format: converting in the loop over weights would take more than the FMAs.
    """

    activations: DType = DType.FLOAT32
    weights: DType = DType.FLOAT32
    arithmetic: DType = DType.FLOAT32

    @property
    def bytes(self) -> int:
        """Of an element of a convolution's input."""
        return self.arithmetic.bytes

    @property
    def weight_bytes(self) -> int:
        """Of a weight."""
        return self.weights.bytes

    @staticmethod
    def from_json(data: Mapping[str, str]) -> Precision:
        """The inverse of `dataclasses.asdict`. Raises ValueError where it names formats that are not known."""
        return Precision(**{part: DType(name) for part, name in data.items()})

    def __str__(self) -> str:
        if self == FLOAT32:
            return str(DType.FLOAT32)
        if self.activations == DType.FLOAT32:
            return f"float32, weights {self.weights}"
        return f"{self.activations}, sums {self.arithmetic}"


FLOAT32 = Precision()


def precision(dtype: str = "float32", *, accumulate: str | None = None, weights: str | None = None) -> Precision:
    """The precision that a user asks for.

    Parameters
    ----------
    dtype: of activations.
    accumulate: of sums; without it, `dtype`.
    weights: of weights in the library; without it, `dtype`.

    Raises
    ------
    UsageError: there is no such format, or the combination makes no sense.
    """
    for option, value in (("dtype", dtype), ("accumulate", accumulate), ("weights", weights)):
        if value is not None and value not in set(DType):
            raise UsageError(f"unknown format for {option}", found=value, expected=" or ".join(DType))
    stored, sums, kept = DType(dtype), DType(accumulate or dtype), DType(weights or dtype)
    if stored.bits > sums.bits:
        raise UsageError(
            f"{stored} activations are not summed in {sums}",
            found=f"dtype {dtype}, accumulate {accumulate}",
            remedy=f"choose dtype {sums}, or leave accumulate out",
        )
    if kept.bits > stored.bits:
        raise UsageError(
            f"{stored} activations have {stored} weights",
            found=f"dtype {dtype}, weights {weights}",
            remedy="leave weights out",
        )
    return Precision(stored, kept, sums)
