"""Inlining of elementwise blocks into their readers, as long as what is computed stays about as long.

before: a = exp(x); b = a + 1; c = b * b
after:  c = (exp(x) + 1) * (exp(x) + 1)

LLVM finds again what is written twice. But every reader that reads a value twice doubles it, so that a chain of gates
would be millions of terms long: a value that makes its reader too long stays a tensor.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
from tvm.s_tir import Schedule as PrimFuncSchedule
from tvm.s_tir.dlight.analysis import SBlockInfo as BlockInfo
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.schedule import ScheduleError
from tvm.tirx import PrimFunc
from tvm_ffi import structural_walk

LONGEST = 16
"""Terms of the longest expression that inlining may make: elements that it reads, and CALL_TERMS for each function."""
CALL_TERMS = 4


def inlined(function: PrimFunc) -> PrimFunc:
    """`function` with its elementwise blocks inlined into their readers, or, the last one, into what it reads."""
    schedule = PrimFuncSchedule(function)
    every = normalize_prim_func(schedule) or []
    # What is computed from the sum of one element would go into its beginning and into its end.
    if any(block.is_reduction() and "R" not in str(block.dom_kind()) for block in every):
        return function
    blocks = [block for block in every if block.is_injective()]
    kept = _kept(schedule, blocks)
    left = []
    for block in blocks:
        body = schedule.get(block.block_rv)
        if body.writes[0].source in kept or not _tried(schedule.compute_inline, block):
            left.append((block, body))
    for block, body in left:
        if not any(region.source in kept for region in (*body.reads, *body.writes)):
            _tried(schedule.reverse_compute_inline, block)
    return schedule.mod["main"]


def _tried(inline: Any, block: BlockInfo) -> bool:
    try:
        inline(block.block_rv)
    except ScheduleError:
        return False
    return True


def _kept(schedule: PrimFuncSchedule, blocks: list[BlockInfo]) -> set[Any]:
    """The buffers that stay, because a reader of their expressions would be longer than LONGEST."""
    kept: set[Any] = set()
    lengths: dict[Any, int] = {}
    for block in blocks:
        body = schedule.get(block.block_rv)
        loads: Counter[Any] = Counter()
        calls: list[Any] = []
        structural_walk(
            body.body,
            (
                (tvm.ir.TensorLoad, lambda load, loads=loads: loads.update([load.source])),
                (tvm.ir.Call, calls.append),
            ),
        )

        def length(calls: int = len(calls), loads: Counter[Any] = loads) -> int:
            return CALL_TERMS * calls + sum(
                count * (1 if buffer in kept else lengths.get(buffer, 1)) for buffer, count in loads.items()
            )

        # The longest first: fewer of them have to stay.
        for buffer in sorted(loads, key=lambda buffer: -lengths.get(buffer, 1)):
            if length() > LONGEST and lengths.get(buffer, 1) > 1:
                kept.add(buffer)
        lengths[body.writes[0].source] = max(length(), 1)
    return kept
