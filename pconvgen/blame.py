"""Which layer of the user's model made a step of the compiler fail, and whose fault it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pconvgen.errors import REPORT, CompilerBugError, PconvgenError
from pconvgen.frontend import Imported
from pconvgen.frontend.spec import last_line
from pconvgen.tvm_compat import apply, beginning, main_bindings, op_name, tuple_item

T = TypeVar("T")

_HERE = str(Path(__file__).parent)
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
        return apply(step)
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


def bug(error: BaseException, *, file: object = None, layer: str | None = None, operator: str = "") -> CompilerBugError:
    """The error to show for one that only a mistake of ours explains."""
    found = f"{type(error).__name__}: {last_line(error)}" if str(error) else type(error).__name__
    return CompilerBugError(
        "this is a bug in pconvgen" + (f", in compiling this {operator}" if operator else ""),
        file=file,
        layer=layer,
        found=found,
        remedy=REPORT,
    )


def ours(error: BaseException) -> bool:
    """Whether an error was raised in this package rather than in TVM, which it called."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    last = max((number for number, name in enumerate(frames) if name.startswith(_HERE)), default=-1)
    called = frames[last + 1 :]
    return last >= 0 and not any("tvm" in name for name in called)


def culprit(imported: Imported, step: Callable[[Any], Any], kind: type[Exception]) -> tuple[str | None, str]:
    """(layer, operator) of the model that `step` fails with, with an error of that kind; (None, "") if none does."""
    bindings = main_bindings(imported.module) or []

    def fails(count: int) -> bool:
        module = beginning(imported.module, count)
        try:
            if module is not None:
                apply(step, module)
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
