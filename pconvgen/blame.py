"""Which layer of the user's model made a step of the compiler fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pconvgen.bugs import bug, ours
from pconvgen.errors import REPORT, PconvgenError, last_line
from pconvgen.frontend import Imported
from pconvgen.tvm_compat.relax import op_name, tuple_item
from pconvgen.tvm_compat.rewriting import beginning, main_bindings

T = TypeVar("T")

_PATIENCE = 600
"""Most operators of a model of which parts are compiled again to find the one that fails."""


def attempt(action: str, imported: Imported, step: Callable[[], T], again: Callable[[Any], Any]) -> T:
    """What `step` returns, which makes something of the module of `imported`.

    Where it fails, the operator is sought that it fails with: `again` does the same to the beginning of that module, up
    to one operator and another. `action` is what they do, for the message: lower or build.

    Raises
    ------
    PconvgenError: what a pass raised, as it raised it; or that TVM cannot do it, with the layer.
    CompilerBugError: our own code failed.
    """
    try:
        return step()
    except (PconvgenError, MemoryError):
        raise
    except Exception as error:
        layer, operator = culprit(imported, again, type(error))
        kind = f"this {operator}" if operator else "this model"
        if ours(error):
            raise bug(error, file=imported.source, layer=layer, operator=operator) from error
        raise PconvgenError(
            f"TVM cannot {action} {kind}",
            file=imported.source,
            layer=layer,
            found=last_line(error),
            remedy=f"compute it with other operators in the model, or {REPORT}",
        ) from error


def culprit(imported: Imported, step: Callable[[Any], Any], kind: type[Exception]) -> tuple[str | None, str]:
    """(layer, operator) of the model that `step` fails with, with an error of that kind; (None, "") if none does."""
    bindings = main_bindings(imported.module) or []

    def fails(count: int) -> bool:
        try:
            module = beginning(imported.module, count)
            if module is not None:
                step(module)
        except Exception as error:
            return isinstance(error, kind)
        return False

    if len(bindings) > _PATIENCE or not fails(len(bindings)):
        return None, ""
    right, wrong = 0, len(bindings)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        right, wrong = (right, middle) if fails(middle) else (middle, wrong)
    return _named(imported, bindings, wrong - 1)


def _named(imported: Imported, bindings: list[Any], number: int) -> tuple[str | None, str]:
    """The layer and the operator that a binding of the model computes."""
    item = tuple_item(bindings[number].value)
    if item is not None:
        number = next(i for i, binding in enumerate(bindings) if binding.var.same_as(item[0]))
    binding, origin = bindings[number], imported.origins.of(bindings, number)
    layer = imported.layer_names.get(binding.var.name, origin.layer if origin else None)
    return layer, origin.operator if origin else op_name(binding.value).rpartition(".")[2]
