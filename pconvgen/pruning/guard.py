"""Watches over a model in training: it stays the same model, its weights stay finite, its last good state is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import nn

from pconvgen.errors import PconvgenError
from pconvgen.pruning.layers import PrunableWeight


class Guard:
    """Takes the memory of another copy of the model's state.

    Parameters
    ----------
    model: with finite weights.
    layers: of it that are pruned.

    Raises
    ------
    PconvgenError: its weights are not finite.
    """

    def __init__(self, model: nn.Module, layers: Sequence[PrunableWeight]) -> None:
        self._model = model
        self._source = type(model).__name__
        self._layers = [(layer, layer.uses[0].target, layer.shape) for layer in layers]
        self._epoch: int | None = None
        bad = self._nonfinite()
        if bad:
            raise PconvgenError(
                "the weights are not finite",
                file=self._source,
                layer=bad,
                remedy="start from weights that were trained without overflow",
            )
        self._good = self._copy()

    def keep(self, epoch: int | None) -> None:
        """The present state is good: it was checked, after that epoch or before the first."""
        self._good, self._epoch = self._copy(), epoch

    def check_finite(self) -> None:
        """Gives the model its last good state back and raises PconvgenError when a weight is not finite."""
        bad = self._nonfinite()
        if bad:
            self.refuse(bad)

    def refuse(self, layer: str | None = None) -> NoReturn:
        """Gives the model its last good state back and raises PconvgenError."""
        self._model.load_state_dict(self._good)
        when = "before the first epoch" if self._epoch is None else f"after epoch {self._epoch}"
        raise PconvgenError(
            "the loss or the weights are not finite any more",
            file=self._source,
            layer=layer,
            remedy=f"the model has its weights of {when} again: lower the learning rate or clip gradients, make the"
            " optimizer anew, and go on from there",
        )

    def check_same(self) -> None:
        """Raises PconvgenError when a layer that is pruned has another weight than at first."""
        named = dict(self._model.named_parameters(remove_duplicate=False))
        for layer, target, shape in self._layers:
            found = named.get(target or "")
            if found is layer.parameter and layer.shape == shape:
                continue
            raise PconvgenError(
                "the model was changed since the pruner was made",
                file=self._source,
                layer=layer.name,
                found="no such weight" if found is None else f"another weight, {tuple(found.shape)}",
                expected=f"the weight that it had, {shape}",
                remedy="change the model first and make the pruner then; load weights with load_state_dict",
            )

    def _nonfinite(self) -> str | None:
        for name, value in self._model.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                return name.rpartition(".")[0] or name
        return None

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}
