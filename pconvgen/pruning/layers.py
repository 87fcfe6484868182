"""The layers of a PyTorch model that can be pruned, as torch.export sees them: with the names that `explain` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pconvgen.errors import PconvgenError, last_line
from pconvgen.frontend.spec import check_dtype
from pconvgen.frontend.torch.weights import Use, from_kernels, to_kernels, uses
from pconvgen.sparsity import Weight


@dataclass(frozen=True, eq=False)
class PrunableWeight:
    """One weight, and the layers that use it.

    Attributes
    ----------
    uses: at least one; all have the same operator.
    parameter: the weight as the model holds it.
    """

    uses: tuple[Use, ...]
    parameter: nn.Parameter

    @property
    def name(self) -> str:
        """Of the first of its uses."""
        return self.uses[0].name

    @property
    def op(self) -> str:
        """conv2d, conv2d_transpose or linear."""
        return self.uses[0].op

    @property
    def groups(self) -> int:
        """Of the convolution."""
        return self.uses[0].groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its uses, without zeros."""
        return sum(use.pixels for use in self.uses) * self.parameter.numel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight as the model has it."""
        return tuple(self.parameter.shape)

    @property
    def is_depthwise(self) -> bool:
        """Whether filters have one kernel each."""
        return self.groups > 1 and self.weight().shape[1] == 1

    def weight(self, tensor: torch.Tensor | None = None) -> Weight:
        """The weight, or a tensor like it, as [filters, channels / groups, height, width]; a view where possible."""
        use = self.uses[0]
        return to_kernels(self.parameter if tensor is None else tensor, use.op, use.groups, use.flipped)

    def tensor(self, values: Any) -> torch.Tensor:
        """An array of the shape of `weight()`, or a mask, as the model holds the weight and where it holds it."""
        use = self.uses[0]
        found = from_kernels(np.array(values), use.op, use.groups, use.flipped)
        return found.to(self.parameter.device).contiguous()


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module, without torch.compile or DistributedDataParallel around it."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def exported(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> Any:
    """The model's ExportedProgram in evaluation mode; the model's own mode stays.

    Raises PconvgenError when torch.export cannot trace it.
    """
    with evaluation(model), torch.no_grad():
        try:
            return torch.export.export(model, tuple(example_inputs))
        except Exception as error:  # torch.export raises many kinds
            raise PconvgenError(
                "torch.export cannot trace this model",
                file=type(model).__name__,
                found=last_line(error),
                remedy="make torch.export.export(model.eval(), example_inputs) work; its message says what is missing",
            ) from error


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for as long; each module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def layers_of(model: nn.Module, program: Any) -> tuple[PrunableWeight, ...]:
    """The layers whose weight is a parameter of the model, in program order; weights that are shared are there once.

    Raises PconvgenError when one of them is not float32.
    """
    found: dict[int, list[Use]] = {}
    parameters: dict[int, nn.Parameter] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for use in uses(program):
        parameter = named.get(use.target or "")
        if parameter is not None:
            dtype = str(parameter.dtype).removeprefix("torch.")
            check_dtype("weight", f"{use.name}.weight", dtype, type(model).__name__)
            found.setdefault(id(parameter), []).append(use)
            parameters[id(parameter)] = parameter
    return tuple(PrunableWeight(tuple(mine), parameters[key]) for key, mine in found.items())
