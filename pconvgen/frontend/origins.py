"""Which node of the user's model a Relax variable comes from, for messages."""

from __future__ import annotations

from typing import NamedTuple

from tvm import relax

from pconvgen.tvm_compat.relax import Binding, Expr


class Origin(NamedTuple):
    """A node of a model: the layer as the model names it, and its operator as its framework names it."""

    layer: str
    operator: str


class Origins(dict[str, Origin]):
    """Name of a variable -> the node whose result it is. Results within a node lie before it, and have none."""

    def note(self, result: Expr, origin: Origin) -> None:
        """Remember the node that `result` is the result of, a variable or a tuple of them."""
        for each in result.fields if isinstance(result, relax.Tuple) else [result]:
            if isinstance(each, relax.Var):
                # A node that hands its input on is not where that comes from.
                self.setdefault(each.name, origin)

    def of(self, bindings: list[Binding], number: int) -> Origin | None:
        """The node that the binding of that number was made for: the first one whose result follows."""
        return next((self[one.var.name] for one in bindings[number:] if one.var.name in self), None)
