"""Reducing windows and planes to their largest number, or to a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pconvgen.tvm_compat.tir import Expr, T, number, ramp

UNROLLED = 8
"""Elements of a window's row or column that are unrolled; more of them get a loop."""


def nothing(kind: str, computed: str, lanes: int) -> Expr:
    """What changes no reduction."""
    return number(0 if kind == "avg" else float("-inf"), computed, lanes)


def combined(kind: str, left: Expr, right: Expr) -> Expr:
    return left + right if kind == "avg" else T.max(left, right)


def together(kind: str, values: Iterator[Expr]) -> Expr:
    result = next(values)
    for value in values:
        result = combined(kind, result, value)
    return result


def reduced(kind: str, computed: str, begin: Expr, end: Expr, load: Callable[[Expr], Expr], lanes: int) -> Expr:
    """load(begin), ..., load(end - 1) together; a few of a number that is known are unrolled."""
    if isinstance(end, int) and end - begin <= UNROLLED:
        return together(kind, map(load, range(begin, end)))
    total = T.alloc_buffer((lanes,), computed)
    at = ramp(0, lanes)
    T.buffer_store(total, nothing(kind, computed, lanes), [at])
    with T.serial(begin, end) as i:
        T.buffer_store(total, combined(kind, total[at], load(T.Bind(T.Cast("int64", i)))), [at])
    return total[at]
