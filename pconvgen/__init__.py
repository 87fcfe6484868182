"""pconvgen: the open compiler for pruned CNNs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pconvgen import pruning as pruning
    from pconvgen.compiler import compile as compile
    from pconvgen.frontend import load_model as load_model
    from pconvgen.model import CompiledModel as CompiledModel
    from pconvgen.model import load as load

__all__ = ["CompiledModel", "compile", "load", "load_model", "pruning"]

_HOMES = {
    "CompiledModel": "pconvgen.model",
    "compile": "pconvgen.compiler",
    "load": "pconvgen.model",
    "load_model": "pconvgen.frontend",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: TVM and torch take seconds, `pconvgen --help` must not wait for them.
    import importlib

    if name == "pruning":
        return importlib.import_module("pconvgen.pruning")
    if name not in _HOMES:
        raise AttributeError(f"module 'pconvgen' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
