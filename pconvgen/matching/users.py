"""Which bindings of "main" use which variable."""

from __future__ import annotations

from pconvgen.tvm_compat.relax import Binding, Expr, Module, Var, variables_of
from pconvgen.tvm_compat.rewriting import main_bindings, main_results


class Users:
    """The users of each variable of "main".

    Attributes
    ----------
    bindings: those of "main", in program order.
    results: the variables that "main" returns.
    """

    def __init__(self, module: Module) -> None:
        self.bindings = main_bindings(module) or []
        self.results = set(main_results(module))
        self._places = {binding.var: place for place, binding in enumerate(self.bindings)}
        self._users: dict[Var, list[Binding]] = {}
        for binding in self.bindings:
            for var in variables_of(binding.value):
                self._users.setdefault(var, []).append(binding)

    def value(self, expr: Expr) -> Expr:
        """What a variable of a binding is bound to; any other expression itself."""
        place = self._places.get(expr)
        return expr if place is None else self.bindings[place].value

    def fields(self, expr: Expr) -> list[Expr]:
        """The fields of a tuple, which may be bound to a variable."""
        return list(getattr(self.value(expr), "fields", ()))

    def of(self, *variables: Var) -> list[Binding]:
        """The bindings that use any of `variables`, in program order."""
        found = {user.var: user for var in variables for user in self._users.get(var, [])}
        return sorted(found.values(), key=lambda binding: self._places[binding.var])

    def only(self, var: Var) -> Binding | None:
        """The binding that uses `var`, once; None when there are others or the function returns it."""
        users = self._users.get(var, [])
        return users[0] if len(users) == 1 and var not in self.results else None
