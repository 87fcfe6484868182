"""Schedules: how one workload is mapped to one instruction set, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """What all schedules are: frozen dataclasses of numbers, each family's a type of its own."""


@dataclass(frozen=True)
class PixelSchedule(Schedule):
    """Schedule of the `pixels` template.

    Attributes
    ----------
    lanes: pixels of a vector.
    vectors: at most this many vectors per filter are accumulated in registers.
    height: at most so many rows of a tile; 0 for tiles that run across rows, which needs rows without gaps.
    rows: output rows that are computed for all filters before the next ones (cache blocking).
    filters_inside: whether a tile is computed for all filters before the next tile, so that its input stays near,
        rather than a group of filters for all tiles of a block, so that its weights do.
    channels: input channels that are added up for all filters before the next ones, so that a tile's input stays in
        the first-level cache; 0 for all. Needs filters inside.
    prefetch: whether the next row block's input is fetched into the second-level cache while this one is computed.
    """

    lanes: int
    vectors: int
    height: int
    rows: int
    filters_inside: bool
    channels: int
    prefetch: bool


@dataclass(frozen=True)
class ChannelSchedule(Schedule):
    """Schedule of the `channels` template.

    Attributes
    ----------
    lanes: output channels of a vector, a divisor of the group.
    images: images of the batch whose outputs are accumulated together.
    unroll: entries added to separate accumulators, to hide the latency of the FMA.
    """

    lanes: int
    images: int
    unroll: int


@dataclass(frozen=True)
class WinogradSchedule(Schedule):
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
