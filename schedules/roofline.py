"""An analytic model of a core: what the cost of every kernel is made of.

It counts what a loop iteration starts (FMAs, loads, instructions) against what the core can start per cycle, and the
lines of input and weights against what the caches deliver, as a roofline does, and adds loop overheads and stores. It
ranks encodings and schedules. Each family of kernels has its own formulas (`cost.py` in its folder).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pconvgen.sparsity.structure import TapShape
from pconvgen.values.core import Costs, VectorWidth
from pconvgen.values.planes import Places, PlaneLayout
from pconvgen.values.schedule import Schedule
from pconvgen.values.workload import Activation, ConvWorkload

Array = NDArray[np.float64]
Numbers = Any
"""A number, or a float64 array of them."""

ARITHMETIC = {"sigmoid": 15, "silu": 15, "divide": 5}
"""Instructions of the operations of an activation that take the time of an FMA; of others one."""

S = TypeVar("S", bound=Schedule)


@dataclass(frozen=True, eq=False)
class Priced(Generic[S]):
    """The legal schedules of an encoding that reads from one layout, with what each takes by where the output lies.

    A target enters the cost by two numbers only, so that what a schedule costs is computed once for all targets:

        cycles = fixed + stores * store_cycles(target) + zeros * zeros_cycles(target)

    Attributes
    ----------
    schedules: in no order.
    fixed: cycles with an output that is stored as it is, float64 [schedules].
    stores: vectors that are stored, float64 [schedules].
    zeros: rows of outputs that are stored, float64 [schedules].
    """

    schedules: tuple[S, ...]
    fixed: Array
    stores: Array
    zeros: Array

    def cycles(self, places: Places | None, costs: Costs) -> Array:
        """Cycles of each schedule, [schedules]; None as `places` is for products of matrices."""
        if places is None:
            return self.fixed
        target = places.target
        return self.fixed + self.stores * store_cycles(target, costs) + self.zeros * zeros_cycles(target, costs)


def no_schedules() -> Priced[Any]:
    """Of what a family of kernels does not compute."""
    none = np.zeros(0)
    return Priced((), none, none, none)


def activation_instructions(workload: ConvWorkload) -> int:
    """Instructions to apply the activation to one vector, as many as FMAs would take that time."""
    activation = workload.epilogue.activation
    return 0 if activation is None else _instructions(activation)


@lru_cache
def _instructions(activation: Activation) -> int:
    operands = (operand for operand in activation.operands if isinstance(operand, Activation) and operand.operands)
    return ARITHMETIC.get(activation.name, 1) + sum(map(_instructions, operands))


def store_cycles(target: PlaneLayout, costs: Costs) -> float:
    """Cycles to store a vector beyond those of storing it once."""
    planes = len(target.phases) // target.stride[0]
    return costs.plane * (planes - 1)


def zeros_cycles(target: PlaneLayout, costs: Costs) -> float:
    """Cycles for the zeros beside a row of outputs."""
    planes = len(target.phases) // target.stride[0]
    return 0.0 if target.pitch * target.stride[1] == target.width and planes == 1 else planes * costs.zeros


def plane_cycles(target: PlaneLayout, lanes: int, costs: Costs) -> float:
    """Cycles to store the planes of a channel of which one element after the other is known."""
    vectors = target.height * -(-target.width // lanes)
    return vectors * (costs.store + store_cycles(target, costs)) + target.height * zeros_cycles(target, costs)


def pack_cycles(target: PlaneLayout, lanes: int, costs: Costs) -> float:
    """Cycles to pack an image."""
    return target.size / lanes * costs.store


def weight_bytes(workload: ConvWorkload, shape: TapShape) -> int:
    """Bytes of all weights and indices."""
    return shape.entries * (workload.precision.weight_bytes * shape.taps * shape.group + 4)


def width_of(widths: tuple[VectorWidth, ...], lanes: int) -> VectorWidth:
    """The narrowest of a core's vectors that holds `lanes`."""
    return next(width for width in reversed(widths) if width.lanes >= lanes)
