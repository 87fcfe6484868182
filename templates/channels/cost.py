"""What the `channels` template costs, see schedules/roofline.py."""

from __future__ import annotations

from pconvgen.schedules.roofline import activation_instructions, weight_bytes, width_of
from pconvgen.sparsity.structure import TapShape
from pconvgen.values.core import Core
from pconvgen.values.schedule import ChannelSchedule
from pconvgen.values.workload import ConvWorkload


def channel_cycles(workload: ConvWorkload, shape: TapShape, schedule: ChannelSchedule, core: Core) -> float:
    """Cycles of a schedule: its FMAs, or reading the weights from memory if that takes longer."""
    costs, vectors = core.costs, shape.group // schedule.lanes
    width = width_of(core.widths(workload.precision.arithmetic), schedule.lanes)
    fma = schedule.images * vectors / width.fma
    tap = max(fma, (vectors + schedule.images) / width.loads, costs.fma_latency / schedule.unroll)
    compute = shape.entries * (shape.taps * tap + costs.entry / core.issue)
    memory = weight_bytes(workload, shape) / costs.memory_bytes
    store = costs.store + activation_instructions(workload) / width.fma
    stores = shape.groups * (costs.body + schedule.images * vectors * store)
    return -(-workload.batch // schedule.images) * (max(compute, memory) + stores) + costs.call
