"""Comparing what an importer made of an operator with the shape that the model's own framework gives it."""

from __future__ import annotations

from collections.abc import Sequence

from pconvgen.errors import PconvgenError

Shapes = Sequence[Sequence[int] | None]


def check_shapes(results: Shapes, expected: Shapes, layer: str, op: str, source: str) -> None:
    """Raises PconvgenError when a result of an operator has another shape than it should; None is not known."""
    for found, wanted in zip(results, expected, strict=False):
        if wanted is not None and found is not None and tuple(found) != tuple(wanted):
            raise PconvgenError(
                f"this {op} was read wrongly: its result has another shape than in the model",
                file=source,
                layer=layer,
                found="x".join(map(str, found)) or "a scalar",
                expected="x".join(map(str, wanted)) or "a scalar",
                remedy="this is a fault in pconvgen; report it with the model, and replace the operator until then",
            )
