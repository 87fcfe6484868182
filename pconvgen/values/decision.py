"""What was decided for a layer, and why: the rows of `explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """One convolution or linear layer of the model.

    Attributes
    ----------
    name: the layer's name in the model.
    op: conv2d, linear, conv2d_transpose, ...
    shape: the weight's shape.
    macs: multiply-accumulates of the dense layer.
    structure: the structure found in the weight, a key of STRUCTURES; "dense" when the layer stayed dense.
    density: share of the weights that are not zero.
    choice: the kernel: template and encoding (which may be a more general one than the structure), or "tvm" when TVM's
        own legalisation computes the layer.
    reason: why, with the numbers that decided.
    schedule: the schedule's values, None for TVM's own code.
    predicted_ms: milliseconds on one core, measured or by a model that was learned from measurements; None where
        nothing was measured on such a device, and for TVM's own code.
    interval_ms: that the time lies between these is expected in four cases of five; None where `predicted_ms` is.
    predicted_cycles: a static estimate; None for TVM's own code.
    nbytes: packed weights and indices, in bytes.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int
    structure: str
    density: float
    choice: str
    reason: str
    schedule: dict[str, Any] | None = None
    predicted_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    predicted_cycles: float | None = None
    nbytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        interval = None if self.interval_ms is None else list(self.interval_ms)
        return {**asdict(self), "shape": list(self.shape), "interval_ms": interval}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Decision:
        """The inverse of `to_json`."""
        interval = data.get("interval_ms")
        values = {"shape": tuple(data["shape"]), "interval_ms": None if interval is None else tuple(interval)}
        return Decision(**{**data, **values})
