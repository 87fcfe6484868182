"""Schedules of Winograd convolution: which are legal on an instruction set, and the cycles that they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pconvgen.schedules.isa import Isa
from pconvgen.workload import ConvWorkload


@dataclass(frozen=True)
class WinogradSchedule:
    """Schedule of the `winograd` template.

    Attributes
    ----------
    tile: outputs of a tile in each direction, m of F(m, 3); it reads m + 2 inputs in each.
    lanes: tiles of a vector in the products.
    vectors, filters: of a register tile of the products.
    rows: rows of tiles that are computed for all filters before the next ones (cache blocking).
    """

    tile: int
    lanes: int
    vectors: int
    filters: int
    rows: int
