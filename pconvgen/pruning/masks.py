"""Pruned weights stay zero, whatever the optimizer does.

Masks are put on again after each step of any torch.optim optimizer that has one of the weights: gradients alone would
not do, because momentum and weight decay move weights without one.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class Masks:
    """Masks of weights, from when they are made until `release` or until nobody refers to them.

    Parameters
    ----------
    masks: layer -> its weight, and a bool tensor of its shape.
    """

    def __init__(self, masks: Mapping[str, tuple[nn.Parameter, torch.Tensor]]) -> None:
        self._masks = dict(masks)
        self.apply()
        mine = weakref.ref(self)

        def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            held = mine()
            if held is not None:
                held.apply({id(weight) for group in optimizer.param_groups for weight in group["params"]})

        self.release = weakref.finalize(self, register_optimizer_step_post_hook(after_step).remove)

    def by_name(self) -> dict[str, torch.Tensor]:
        """Layer -> its mask."""
        return {name: mask for name, (_, mask) in self._masks.items()}

    @torch.no_grad()
    def apply(self, only: set[int] | None = None) -> None:
        """Sets what is pruned to zero, in all weights or in those with an id among `only`."""
        for weight, mask in self._masks.values():
            if only is None or id(weight) in only:
                # Not by multiplication: zero times NaN is NaN, and zero times a negative number is -0.
                weight.masked_fill_(~mask.to(weight.device), 0.0)
