"""Distillation: the pruned network learns from the outputs of the dense one (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Distillation:
    """A loss to be added to the task's.

    Parameters
    ----------
    model: a copy of it, as it is now, is the teacher. It takes the memory of a model and the time of its inference.
    temperature: softens the outputs.
    weight: of the loss.
    """

    def __init__(self, model: nn.Module, temperature: float = 4.0, weight: float = 1.0) -> None:
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self._temperature = temperature
        self._weight = weight

    def __call__(self, logits: torch.Tensor, *inputs: Any) -> torch.Tensor:
        """The divergence of the teacher's classes from the student's.

        Parameters
        ----------
        logits: the student's outputs, [batch, classes].
        inputs: what they were computed from.
        """
        with torch.no_grad():
            wanted = functional.log_softmax(self._teacher(*inputs) / self._temperature, dim=1)
        found = functional.log_softmax(logits / self._temperature, dim=1)
        # Gradients fall with the square of the temperature.
        scale = self._weight * self._temperature**2
        return scale * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
