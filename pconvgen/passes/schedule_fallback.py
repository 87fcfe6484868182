"""CPU schedules for the loop nests that TVM's legalisation made: what no template computes.

before: for c, y, x: sum[c, y, x] = a[c, y, x] + b[c, y, x]        # one thread, one element
        for c, y, x: out[c, y, x] = max(sum[c, y, x], 0)
after:  parallel for c:
            for yx: out[c, yx] = max(a[c, yx] + b[c, yx], 0)       # a run of memory, for LLVM's vectorizer

Producers are inlined, what is then a reshape becomes a view, and every block that is left is scheduled by the first of
RULES that takes it; a rule that does not says so with None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pconvgen.templates.activations import ELEMENTARY
from pconvgen.tvm_compat.inlining import inlined
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Module, is_static
from pconvgen.tvm_compat.schedules import (
    BlockInfo,
    PrimFuncSchedule,
    ScheduleError,
    blocks_of,
    coefficients,
    dataflow_views,
    from_infinity,
    in_conditions,
    is_scheduled,
    map_functions,
    marked_scheduled,
    replace_calls,
)
from pconvgen.tvm_compat.tir import Expr, PrimFunc
from pconvgen.values.dtype import DType
from pconvgen.values.target import Target

PARALLEL = 1 << 15
"""Iterations that are worth starting threads for, which takes one or two microseconds."""
SHORT = 4
"""Vectors of a run that are unrolled."""
LONG = 1 << 9
"""Elements of a run that are enough for its loop."""
PIECE = 1 << 13
"""Most elements of a run that one iteration of the outer loop computes: 32 KiB of output."""
PARTIALS = 2
"""Vectors of partial results of a reduction along memory."""


@module_pass
class ScheduleFallback:
    """Relax pass that schedules every TIR function that is not scheduled yet.

    Parameters
    ----------
    target: what code is generated for.
    """

    def __init__(self, target: Target) -> None:
        self.lanes = target.core.lanes(DType.FLOAT32)

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module in which all TIR functions are marked `tirx.is_scheduled`."""
        module = dataflow_views(map_functions(module, _unless_scheduled(inlined)))
        return map_functions(module, _unless_scheduled(lambda function: scheduled(function, self.lanes)))


def _unless_scheduled(change: Callable[[PrimFunc], PrimFunc]) -> Callable[[PrimFunc], PrimFunc]:
    return lambda function: function if is_scheduled(function) else change(function)


def scheduled(function: PrimFunc, lanes: int) -> PrimFunc:
    """The function scheduled for vectors of `lanes` float32 numbers; a block that no rule takes stays as it is."""
    # LLVM makes vectors of arithmetic, not of calls of the C library.
    for name, expression in ELEMENTARY.items():
        function = replace_calls(function, name, expression)
    schedule = PrimFuncSchedule(function)
    for info in blocks_of(schedule):
        if not is_static(info.dom()) or 0 in map(int, info.dom()):
            continue
        for rule in RULES:
            trial = schedule.copy()
            try:
                done = rule(_Block(trial, info, lanes))
            except ScheduleError:
                continue
            if done is not None:
                schedule = done
                break
    return from_infinity(marked_scheduled(schedule))


@dataclass(frozen=True, eq=False)
class _Block:
    """A block of a function, as rules see it: one loop for each of its axes, around it alone.

    Attributes
    ----------
    schedule: of the function; rules change it.
    info: name and axes of the block.
    lanes: float32 lanes of a vector.
    """

    schedule: PrimFuncSchedule
    info: BlockInfo
    lanes: int

    @property
    def loops(self) -> list[Expr]:
        return list(self.schedule.get_loops(self.info.block_rv))

    @property
    def extents(self) -> list[int]:
        return [int(size) for size in self.info.dom()]

    @property
    def kinds(self) -> str:
        """S for each axis of outputs, R for each that is reduced."""
        return str(self.info.dom_kind())

    def strides(self) -> list[list[int | None]]:
        """How far apart the elements are that neighbours along each axis access, for each tensor: the output first.

        None is a distance that is not the same everywhere, and one that conditions depend on: what is chosen between
        is nothing to choose for each element of a run.
        """
        block = self.schedule.get(self.info.block_rv)
        axes = [axis.var for axis in block.iter_vars]
        conditional = in_conditions(block, axes)
        return [
            [None if split else stride for split, stride in zip(conditional, coefficients(region, axes), strict=True)]
            for region in (*block.writes, *block.reads)
        ]


def spatial(block: _Block) -> PrimFuncSchedule | None:
    """Elementwise and moved elements: the axes that are one run of memory for all tensors become the inner loop."""
    if "R" in block.kinds or not block.extents:
        return None
    strides = block.strides()
    first = _first_of_run(strides, block.extents)
    schedule, loops, size = block.schedule, block.loops, math.prod(block.extents[first:])
    run = _fused(schedule, loops[first:])
    outer = loops[:first]
    if size <= SHORT * block.lanes and all(stride[-1] in (0, 1) for stride in strides):
        # LLVM's loops of several vectors would leave most of it to a loop of elements.
        schedule.vectorize(run)
    if first == len(loops) - 1 and size > PIECE and (piece := _divisor(size, PIECE, block.lanes)):
        part, _ = schedule.split(run, [None, piece])
        outer.append(part)
    if outer and math.prod(block.extents) >= PARALLEL:
        schedule.parallel(_fused(schedule, outer))
    return schedule


def across(block: _Block) -> PrimFuncSchedule | None:
    """Reductions of vectors: over channels, say, where outputs follow each other in memory as their inputs do.

    A piece of the outputs is the inner loop, inside of the reduction.
    """
    kinds, extents, strides = block.kinds, block.extents, block.strides()
    if "R" not in kinds or "S" not in kinds:
        return None
    last = kinds.rindex("S")
    if any(stride[last] not in (0, 1) for stride in strides) or extents[last] < block.lanes // 2:
        return None
    schedule, loops = block.schedule, block.loops
    begin = last
    while begin and kinds[begin - 1] == "S" and _adjacent(strides, extents, begin - 1):
        begin -= 1
    outer = [loop for loop, kind in zip(loops[:begin], kinds, strict=False) if kind == "S"]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "R"]
    size = math.prod(extents[begin : last + 1])
    run = _fused(schedule, loops[begin : last + 1])
    if size > PIECE // 8 and (piece := _divisor(size, PIECE // 8, block.lanes)):
        part, run = schedule.split(run, [None, piece])
        outer.append(part)
    schedule.reorder(*outer, *reduced, run)
    if outer:
        outside = _fused(schedule, outer)
        if math.prod(extents) >= PARALLEL:
            schedule.parallel(outside)
    schedule.decompose_reduction(block.info.block_rv, reduced[0])
    return schedule


def along(block: _Block) -> PrimFuncSchedule | None:
    """Reductions of rows of memory: several partial results side by side, which are reduced in the end."""
    kinds, extents, strides = block.kinds, block.extents, block.strides()
    if "R" not in kinds or kinds.lstrip("S").strip("R") or any(stride[-1] not in (0, 1) for stride in strides[1:]):
        return None
    schedule, loops = block.schedule, block.loops
    begin = len(kinds) - 1
    while begin > kinds.index("R") and _adjacent(strides[1:], extents, begin - 1):
        begin -= 1
    partials = _divisor(math.prod(extents[begin:]), PARTIALS * block.lanes, block.lanes)
    if partials is None:
        return None
    _, part = schedule.split(_fused(schedule, loops[begin:]), [None, partials])
    first = schedule.rfactor(part, factor_axis=len(schedule.get(block.info.block_rv).writes[0].region))
    loops = list(schedule.get_loops(first))
    outer, reduced, lane = loops[: kinds.index("R")], loops[kinds.index("R") : -1], loops[-1]
    schedule.reorder(*outer, *reduced, lane)
    if outer:
        outside = _fused(schedule, outer)
        if math.prod(extents) >= PARALLEL:
            schedule.parallel(outside)
    schedule.decompose_reduction(first, reduced[0])
    return schedule


RULES: Sequence[Callable[[_Block], PrimFuncSchedule | None]] = (spatial, across, along)
"""How a block may be scheduled, tried in this order."""


def _first_of_run(strides: list[list[int | None]], extents: list[int]) -> int:
    """The first of as many of the last axes as make a run of LONG elements in memory for all tensors.

    More are not needed, and LLVM would no longer see that the first of them is a loop of its own.
    """
    first = len(extents) - 1
    while first and math.prod(extents[first:]) < LONG and _adjacent(strides, extents, first - 1):
        first -= 1
    return first


def _adjacent(strides: list[list[int | None]], extents: list[int], axis: int) -> bool:
    """Whether an axis and the next one are together one axis, for all tensors."""
    return all(
        outer is not None and inner is not None and outer == inner * extents[axis + 1]
        for outer, inner in (stride[axis : axis + 2] for stride in strides)
    )


def _divisor(size: int, most: int, lanes: int) -> int | None:
    """The largest divisor of `size` up to `most`, of whole vectors if there is one; None when it has less than half."""
    divisors = [number for number in range(2, min(size, most) + 1) if size % number == 0]
    whole = [number for number in divisors if number % lanes == 0]
    return max(whole or [number for number in divisors if 2 * number >= lanes], default=None)


def _fused(schedule: PrimFuncSchedule, loops: list[Expr]) -> Expr:
    return schedule.fuse(*loops) if len(loops) > 1 else loops[0]
