"""Relax modules: what "main" computes and returns, and modules with another "main"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import relax

from pconvgen.tvm_compat.relax import Binding, Expr, Module, Var, shape_of, variables_of, with_args

LAYERS = "pconvgen.layers"
"""Attribute of the Relax function "main": name of a convolution's or matmul's variable -> layer name in the model."""

Emit = Callable[..., Var]
"""emit(expr, name) binds an expression before the one that is rewritten and returns its variable; see below."""


def main_bindings(module: Module) -> list[Binding] | None:
    """The bindings of the dataflow block of "main"; None when its body is not exactly one dataflow block."""
    blocks = module["main"].body.blocks
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        return None
    return list(blocks[0].bindings)


def main_results(module: Module) -> list[Var]:
    """What "main" returns: the fields of the tuple, or the one tensor."""
    result = module["main"].body.body
    bound = {binding.var: binding.value for binding in main_bindings(module) or []}
    value = bound.get(result, result)
    return list(value.fields) if isinstance(value, relax.Tuple) else [result]


def layer_names(module: Module) -> dict[str, str]:
    """Attribute LAYERS of "main"; empty when a module has none."""
    attrs = module["main"].attrs
    names = attrs[LAYERS] if attrs and LAYERS in attrs else {}
    return {str(variable): str(layer) for variable, layer in names.items()}


def with_functions(module: Module, functions: Mapping[Any, Any]) -> Module:
    """A module with `functions`, variable or name -> function, beside or in place of those that `module` has."""
    result = tvm.ir.IRModule(module.functions, attrs=module.attrs)
    for variable, function in functions.items():
        result[variable] = function
    return result


def with_main_attr(module: Module, key: str, value: Any) -> Module:
    """`module` with an attribute of "main" set."""
    return with_functions(module, {"main": module["main"].with_attr(key, value)})


def returning(module: Module, variables: list[Var]) -> Module:
    """`module` with a "main" that returns a tuple of variables of its dataflow block."""
    return _returning(module, main_bindings(module) or [], variables)


def _returning(module: Module, bindings: list[Binding], variables: list[Var]) -> Module:
    function, builder = module["main"], relax.BlockBuilder()
    outputs = [relax.Var(f"{variable.name}_result", variable.ty) for variable in variables]
    copies = [relax.VarBinding(output, variable) for output, variable in zip(outputs, variables, strict=True)]
    block = relax.DataflowBlock([*bindings, *copies])
    body = builder.normalize(relax.SeqExpr([block], relax.Tuple(outputs)))
    return with_functions(
        module, {"main": relax.Function(function.params, body, body.ty, function.is_pure, function.attrs)}
    )


def beginning(module: Module, count: int) -> Module | None:
    """`module` with the first `count` bindings of "main", which returns the tensors that none of them uses; None if
    there is no such tensor."""
    bindings = [one for one in (main_bindings(module) or [])[:count] if not isinstance(one.value, relax.Tuple)]
    used = {var for binding in bindings for var in variables_of(binding.value)}
    ends = [one.var for one in bindings if one.var not in used and shape_of(one.var) is not None]
    return _returning(module, bindings, ends) if ends else None


def rewrite_main(module: Module, rule: Callable[[Var, Expr, Emit], Expr], *, typed: bool = True) -> Module:
    """Rebuild the dataflow block of "main" from first to last binding, each value replaced by what `rule` returns.

    `rule(var, value, emit)` sees `value` with all earlier replacements made and its type known, and returns it or
    another expression; a variable or constant takes the place of `var` everywhere after.
    `emit(expr, name)` binds a further expression before it and returns the variable.
    With `typed` false, `value` may have no type yet: for rules that change shapes, which do not fit before they ran.
    Where it returns None, nothing is bound, for variables that nothing will use.
    A module whose "main" is not one dataflow block is returned as it is.
    """
    block = main_bindings(module)
    if block is None:
        return module
    builder = relax.BlockBuilder()
    replaced: dict[Var, Expr] = {}
    bindings: list[Binding] = []

    def emit(expr: Expr, name: str = "lv") -> Var:
        value = builder.normalize(expr)
        var = relax.DataflowVar(name, value.ty)
        bindings.append(relax.VarBinding(var, value))
        return var

    for binding in block:
        value = substitute(binding.value, replaced)
        result = rule(binding.var, builder.normalize(value) if typed else value, emit)
        if result is None:
            continue
        leaf = isinstance(result, tvm.ir.GenericConst | relax.Var)
        if leaf and isinstance(binding.var, relax.DataflowVar):
            replaced[binding.var] = result
        else:
            bindings.append(relax.VarBinding(binding.var, builder.normalize(result)))
    function = module["main"]
    body = builder.normalize(relax.SeqExpr([relax.DataflowBlock(bindings)], function.body.body))
    rebuilt = relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
    return with_functions(module, {"main": rebuilt})


def substitute(expr: Expr, replaced: dict[Var, Expr]) -> Expr:
    """`expr` with variables replaced by other variables or by constants."""
    if isinstance(expr, relax.Var):
        return replaced.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        fields = [substitute(field, replaced) for field in expr.fields]
        same = all(new.same_as(old) for new, old in zip(fields, expr.fields, strict=True))
        return expr if same else relax.Tuple(fields)
    if isinstance(expr, relax.TupleGetItem):
        source = substitute(expr.tuple_value, replaced)
        return expr if source.same_as(expr.tuple_value) else relax.TupleGetItem(source, expr.index)
    if isinstance(expr, tvm.ir.Call):
        args = [substitute(arg, replaced) for arg in expr.args]
        same = all(new.same_as(old) for new, old in zip(args, expr.args, strict=True))
        return expr if same else with_args(expr, args)
    return expr


def eliminate_dead_code(module: Module) -> Module:
    """`module` without bindings that nothing uses."""
    return relax.transform.DeadCodeElimination()(module)
