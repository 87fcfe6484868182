"""The space of schedules of the `channels` template."""

from __future__ import annotations

from collections.abc import Iterator

from pconvgen.sparsity.structure import TapShape
from pconvgen.values.isa import Isa
from pconvgen.values.schedule import ChannelSchedule
from pconvgen.values.workload import ConvWorkload

UNROLL = (1, 2, 4, 8)


def channel_schedules(workload: ConvWorkload, shape: TapShape, isa: Isa) -> Iterator[ChannelSchedule]:
    """Legal schedules: accumulators, weights and an input fit into the registers."""
    lanes = isa.lanes(workload.precision.arithmetic)[0]
    while shape.group % lanes:
        lanes //= 2
    vectors = shape.group // lanes
    for images in sorted({1, min(workload.batch, 2), min(workload.batch, 4)}):
        for unroll in UNROLL:
            if vectors * images * unroll + vectors + 1 <= isa.registers:
                yield ChannelSchedule(lanes, images, unroll)
