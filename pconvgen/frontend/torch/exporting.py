"""torch.export of modules, and of programs for other shapes and types."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pconvgen.errors import UsageError
from pconvgen.frontend.spec import Shape, resolve_shapes
from pconvgen.frontend.torch.causes import export_error
from pconvgen.frontend.torch.sparse import densified


def export_module(
    model: torch.nn.Module, inputs: Mapping[str, Sequence[int]] | None, example: Sequence[torch.Tensor] | None
) -> torch.export.ExportedProgram:
    """Export `model` in evaluation mode; its training flags are put back and its weights copied.

    The example inputs are `example`, or random tensors of the shapes in `inputs` (argument name of forward() -> shape).
    """
    source = type(model).__name__
    kwargs: dict[str, torch.Tensor] = {}
    if example is None:
        parameters = inspect.signature(model.forward).parameters
        names = list(parameters)
        needed = {
            name
            for name, one in parameters.items()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        }
        if not inputs or (needed > inputs.keys()):
            raise UsageError(
                "a module needs the shapes of its inputs",
                file=source,
                found=", ".join(inputs or {}),
                expected=f"a shape for {' and '.join(names)}",
                remedy=f"give inputs={{{names[0] if names else 'x'!r}: (1, 3, 224, 224)}} or example=(tensor,)",
            )
        shapes = resolve_shapes({name: [None] * len(inputs.get(name, ())) for name in names}, inputs, source)
        floats = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
        dtype = next(floats, torch.float32)
        kwargs = {name: torch.randn(shape, dtype=dtype) for name, shape in shapes.items() if name in inputs}
    with _evaluating(model):
        program = export(model, tuple(example or ()), kwargs, source)
    for tensors in (program.state_dict, program.constants):
        for name, tensor in tensors.items():
            if isinstance(tensor, torch.Tensor):
                copy = tensor.detach().clone()
                tensors[name] = torch.nn.Parameter(copy, False) if isinstance(tensor, torch.nn.Parameter) else copy
    return program


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], source: str
) -> torch.export.ExportedProgram:
    """torch.export of a model for example inputs. Raises PconvgenError with the cause and its line in the model."""
    try:
        with torch.no_grad(), warnings.catch_warnings(), densified(model):
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs)
    except Exception as error:
        raise export_error(error, source) from error


def specialise(
    module: Any, shapes: Mapping[str, Shape], types: Mapping[str, torch.dtype], in_spec: Any, source: str
) -> Any:
    """The program of an exported module for static shapes and these types of its inputs."""
    flat = [
        torch.randn(shape, dtype=types[name])
        if types[name].is_floating_point
        else torch.zeros(shape, dtype=types[name])
        for name, shape in shapes.items()
    ]
    args, kwargs = pytree.tree_unflatten(flat, in_spec)
    return export(module, args, kwargs, source)
