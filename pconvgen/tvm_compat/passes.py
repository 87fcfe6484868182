"""Passes written in Python: TVM hands on a copy of what they raise, of a type and with a text of its own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import tvm

from pconvgen.tvm_compat.relax import Module

T = TypeVar("T")

Pass = Any
"""A pass of TVM's: called with a module, it returns another one."""

_RAISED = threading.local()


def module_pass(transform: Any) -> Pass:
    """Decorator that makes a class with `transform_module(module, context)`, or such a function, a TVM pass.

    Within `apply` and `run_passes`, what it raises arrives as it was raised.
    """
    if not inspect.isclass(transform):
        return tvm.transform.module_pass(_remembering(transform), opt_level=0)
    transform.transform_module = _remembering(transform.transform_module)  # type: ignore[attr-defined]
    return tvm.transform.module_pass(transform, opt_level=0)


def apply(function: Callable[..., T], *args: Any) -> T:
    """What a function that runs passes returns. What a pass in Python raises arrives as it was raised."""
    _RAISED.error = None
    try:
        return function(*args)
    except Exception as error:
        raised = _RAISED.error
        if raised is None or raised is error:
            raise
    finally:
        _RAISED.error = None
    # Here, so that TVM's copy does not become its context.
    raise raised


def run_passes(module: Module, *passes: Pass) -> Module:
    """`module` after some passes, in order. What a pass in Python raises arrives as it was raised."""
    for one in passes:
        module = apply(one, module)
    return module


def _remembering(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def remembering(*args: Any) -> Any:
        try:
            result = method(*args)
        except Exception as error:
            # A pass may run others: the innermost knows best.
            if getattr(_RAISED, "error", None) is None:
                _RAISED.error = error
            raise
        _RAISED.error = None
        return result

    return remembering
