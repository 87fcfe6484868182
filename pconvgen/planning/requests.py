"""What operations ask of those who plan them and call their kernels."""

from __future__ import annotations

from typing import Any, Protocol

from pconvgen.planning.choose import Layer, LayerPlan
from pconvgen.planning.tensors import Home
from pconvgen.tvm_compat.calls import Kernel
from pconvgen.tvm_compat.relax import Expr
from pconvgen.values.planes import Places, PlaneLayout


class Plans(Protocol):
    """What a layer asks for when it is planned; see `NetworkPlans` (planning/plans.py)."""

    def plan(self, layer: Layer, places: Places | None = None, **where: Any) -> LayerPlan:
        """The encoding and schedule of a layer; see `plan_layer`."""

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""


class TensorAccess(Protocol):
    """What an operation asks for when its kernel is called; see `passes/lower.py`."""

    def read(self, home: Home | None, data: Expr, packed: PlaneLayout | None, dtype: str) -> Expr:
        """The expression of a tensor that a kernel reads in a layout and a format."""

    def number(self, expr: Expr, shape: tuple[int, ...]) -> Expr:
        """A small tensor of other operators, such as a number for each channel, in another shape."""

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""

    def write(self, home: Home, kernel: Kernel, args: list[Expr]) -> None:
        """Calls a kernel that writes a tensor to its home."""

    def result(self, kernel: Kernel, args: list[Expr], shape: tuple[int, ...]) -> Expr:
        """Calls a kernel that makes a tensor of its own."""


def first_place(home: Home | None) -> int:
    """The first place of a tensor that lies in one run; 0 without a home."""
    return 0 if home is None else home.first or 0
