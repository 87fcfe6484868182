"""What the formats have in common when weights are changed: a layer whose weight can be read and replaced."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class WeightedLayer:
    """A convolution or linear layer of a model in some format.

    Attributes
    ----------
    name: as `explain` names it.
    op: conv2d, conv2d_transpose or linear.
    groups: of the convolution.
    weight: float32 [filters, channels / groups, height, width]; None when the model computes it from something else.
    store: puts a new weight of that shape into the model.
    key: equal for layers that share their weight.
    """

    name: str
    op: str
    groups: int
    weight: NDArray[np.float32] | None
    store: Callable[[NDArray[np.float32]], None]
    key: Hashable


@dataclass(frozen=True)
class OtherWeight:
    """A weight that no structure is put into, since its operator is neither a two-dimensional convolution nor linear.

    Attributes
    ----------
    name: of the layer, or of the weight where it has none.
    op: that reads it, as PyTorch names it.
    shape: of the weight.
    density: share of its elements that are not zero.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    density: float


def as_kernels(weight: NDArray[Any]) -> NDArray[np.float32]:
    """A linear weight [filters, channels] as one of 1x1 kernels; a convolution's as it is."""
    return weight if weight.ndim == 4 else weight[:, :, None, None]
