"""What was decided for a layer, and why: the rows of `explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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
    predicted_ms: the analytic model's time on one core, None where the target's clock is not known.
    predicted_cycles: the cycles behind it, a static estimate; None for TVM's own code.
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
    predicted_cycles: float | None = None
    nbytes: int = 0

    def timed(self, ghz: float | None) -> Decision:
        """With the predicted time at a clock of `ghz`; without one where it is not known."""
        known = ghz is not None and self.predicted_cycles is not None
        return replace(self, predicted_ms=self.predicted_cycles / ghz / 1e6 if known else None)  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Decision:
        """The inverse of `to_json`."""
        return Decision(**{**data, "shape": tuple(data["shape"])})
