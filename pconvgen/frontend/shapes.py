"""Comparing what an importer made of an operator with the shape that the model's own framework gives it."""

from __future__ import annotations

from collections.abc import Sequence

from pconvgen.errors import REPORT, CompilerBugError

Shapes = Sequence[Sequence[int] | None]


def check_shapes(results: Shapes, expected: Shapes, layer: str, op: str, source: str) -> None:
    """Raises CompilerBugError when a result of an operator has another shape than it should; None is not known."""
    for found, wanted in zip(results, expected, strict=False):
        if wanted is not None and found is not None and tuple(found) != tuple(wanted):
            raise CompilerBugError(
                f"this {op} was read wrongly: its result has another shape than in the model",
                file=source,
                layer=layer,
                found="x".join(map(str, found)) or "a scalar",
                expected="x".join(map(str, wanted)) or "a scalar",
                remedy=f"this is a bug in pconvgen: {REPORT}; until then replace the operator in the model",
            )
