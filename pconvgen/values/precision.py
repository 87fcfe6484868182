"""The number formats of a network: what tensors and weights are stored in, and what sums are computed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pconvgen.errors import UsageError

Format = Literal["float32", "float16"]
FORMATS: tuple[str, ...] = get_args(Format)
BYTES = {"float32": 4, "float16": 2}
LARGEST_HALF = 65504.0
"""The largest finite float16."""


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

    activations: str = "float32"
    weights: str = "float32"
    arithmetic: str = "float32"

    @property
    def bytes(self) -> int:
        """Of an element of a convolution's input."""
        return BYTES[self.arithmetic]

    @property
    def weight_bytes(self) -> int:
        """Of a weight."""
        return BYTES[self.weights]

    def __str__(self) -> str:
        if self == FLOAT32:
            return "float32"
        if self.activations == "float32":
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
        if value is not None and value not in FORMATS:
            raise UsageError(f"unknown format for {option}", found=value, expected=" or ".join(FORMATS))
    if dtype == "float32" and accumulate == "float16":
        raise UsageError(
            "float32 activations are not summed in float16",
            found=f"dtype {dtype}, accumulate {accumulate}",
            remedy="choose dtype float16, or leave accumulate out",
        )
    if dtype == "float16" and weights == "float32":
        raise UsageError(
            "float16 activations have float16 weights",
            found=f"dtype {dtype}, weights {weights}",
            remedy="leave weights out",
        )
    return Precision(dtype, weights or dtype, accumulate or dtype)
