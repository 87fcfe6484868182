"""Schedules of a weight that is split: a kernel for its blocks, and one that adds the rest to what the first computed.

sums = blocks * x + bias + residual         without a gap, NCHW
y    = activation(rest * x + sums)          where the layer's output is to lie
"""

from __future__ import annotations

from dataclasses import replace

from pconvgen.planning.search import rank
from pconvgen.sparsity.split import Split
from pconvgen.templates.choice import SplitChoice
from pconvgen.values.core import Core
from pconvgen.values.dtype import DType
from pconvgen.values.planes import Places, plain_layout
from pconvgen.values.workload import ConvWorkload, Epilogue


def schedule_split(workload: ConvWorkload, split: Split, core: Core, places: Places) -> SplitChoice:
    """The fastest schedules of a split's kernels."""
    epilogue = workload.epilogue
    first = replace(workload, epilogue=replace(epilogue, activation=None))
    second = replace(workload, epilogue=Epilogue(residual=True, activation=epilogue.activation))
    between = plain_layout(workload.out_channels, workload.out_height, workload.out_width)
    blocks = rank(first, [split.blocks], core, replace(places, target=between))[0]
    rest = rank(second, [split.rest], core, replace(places, residual=between))[0]
    nbytes = DType.FLOAT32.bytes * workload.batch * between.size
    sums = nbytes / (core.costs.l2_bytes if nbytes <= core.l2_kib * 1024 else core.costs.l3_bytes)
    return SplitChoice(split, (first, second), (blocks, rest), blocks.cycles + rest.cycles + sums)
