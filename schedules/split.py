"""Schedules of a weight that is split: a kernel for its blocks, and one that adds the rest to what the first computed.

sums = blocks * x + bias + residual         without a gap, NCHW
y    = activation(rest * x + sums)          where the layer's output is to lie
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pconvgen.schedules.cost import L2_BYTES, L3_BYTES
from pconvgen.schedules.default import Choice, rank
from pconvgen.sparsity.split import Split
from pconvgen.templates.planes import Places, plain_layout
from pconvgen.values.isa import Isa
from pconvgen.values.workload import ConvWorkload, Epilogue


@dataclass(frozen=True)
class SplitChoice:
    """A split with the schedules of its kernels.

    Attributes
    ----------
    split: how the weight is stored.
    workloads: what the kernels compute: the blocks', then the rest's.
    parts: how.
    cycles: what the analytic model predicts for both on one core.
    """

    split: Split
    workloads: tuple[ConvWorkload, ConvWorkload]
    parts: tuple[Choice, Choice]
    cycles: float


def schedule_split(workload: ConvWorkload, split: Split, isa: Isa, l2_kib: int, places: Places) -> SplitChoice:
    """The fastest schedules of a split's kernels."""
    epilogue = workload.epilogue
    first = replace(workload, epilogue=replace(epilogue, activation=None))
    second = replace(workload, epilogue=Epilogue(residual=True, activation=epilogue.activation))
    between = plain_layout(workload.out_channels, workload.out_height, workload.out_width)
    (blocks,) = rank(first, [split.blocks], isa, l2_kib, replace(places, target=between))
    (rest,) = rank(second, [split.rest], isa, l2_kib, replace(places, residual=between))
    nbytes = 4 * workload.batch * between.size
    sums = nbytes / (L2_BYTES if nbytes <= l2_kib * 1024 else L3_BYTES)
    return SplitChoice(split, (first, second), (blocks, rest), blocks.cycles + rest.cycles + sums)
