"""Schedules: how one workload is mapped to one instruction set, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PixelSchedule:
    """Schedule of the `pixels` template.

    Attributes
    ----------
    lanes: pixels of a vector.
    vectors: at most this many vectors per filter are accumulated in registers.
    pitch: distance of input rows in elements.
    align: lanes that the input's centre column is aligned to, 1 for none.
    rows: output rows that are computed for all filters before the next ones (cache blocking).
    """

    lanes: int
    vectors: int
    pitch: int
    align: int
    rows: int


@dataclass(frozen=True)
class ChannelSchedule:
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


Schedule = PixelSchedule | ChannelSchedule
